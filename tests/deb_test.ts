import assert from "node:assert/strict";
import { capture } from "../scripts/capture.ts";
import { buildPackage, type PackageSource } from "../scripts/deb.ts";
import { configureGuest, guestOn, guestRunning, makeDist } from "./support/installation.ts";
import { SHARED, SystemdHosts } from "./support/systemd_hosts.ts";

const EPOCH = Date.UTC(2026, 0, 2, 3, 4, 5) / 1000;

async function output(command: string, args: string[]): Promise<string> {
  const { success, stdout, stderr } = await capture(command, args, { env: { TZ: "UTC", LC_ALL: "C" } });
  assert.ok(success, stderr);
  return stdout;
}

/** Packages of two versions, in a folder. */
async function buildVersions(folder: string, versions: readonly string[]): Promise<string[]> {
  await makeDist(`${folder}/dist`);
  const packages = [];
  for (const version of versions) {
    packages.push(await buildPackage({ version, dist: `${folder}/dist`, output: folder, epoch: EPOCH }));
  }
  return packages;
}

Deno.test("package: it has what is installed, owned by root, and says what it is", async () => {
  const folder = await Deno.makeTempDir({ prefix: "lockvisor-test-" });
  try {
    const [path = ""] = await buildVersions(folder, ["1.2.3"]);
    assert.match(path, /\/lockvisor_1\.2\.3_(amd64|arm64)\.deb$/);
    const fields = await output("dpkg-deb", ["--field", path]);
    assert.match(fields, /^Package: lockvisor\nVersion: 1\.2\.3\nArchitecture: (amd64|arm64)$/m);
    assert.match(fields, /^Installed-Size: \d{5,}$/m);
    assert.match(fields, /^Depends: libc6 \(>= 2\.\d+\), libgcc-s1, passwd$/m);

    const listing = (await output("dpkg-deb", ["--contents", path])).trimEnd().split("\n").map((line) => {
      const [mode, owner, , day, time, name] = line.split(/\s+/);
      assert.equal(owner, "root/root", line);
      assert.equal(`${day} ${time}`, "2026-01-02 03:04", line);
      return `${mode} ${name}`;
    });
    const files = listing.filter((line) => !line.startsWith("d"));
    assert.deepEqual(files.filter((line) => !line.startsWith("-rw-r--r-- ")), [
      "-rwxr-xr-x ./usr/bin/lockvisor",
    ]);
    for (
      const name of [
        "./etc/lockvisor/lockvisor.toml",
        "./usr/lib/systemd/system/lockvisor.service",
        "./usr/lib/systemd/system/lockvisor-guest@.service",
        "./usr/share/bash-completion/completions/lockvisor",
        "./usr/share/doc/lockvisor/copyright",
        "./usr/share/fish/vendor_completions.d/lockvisor.fish",
        "./usr/share/man/man8/lockvisor.8.gz",
        "./usr/share/zsh/vendor-completions/_lockvisor",
      ]
    ) assert.ok(files.includes(`-rw-r--r-- ${name}`), name);
    assert.deepEqual(listing.filter((line) => line.startsWith("d") && !line.startsWith("drwxr-xr-x")), []);
    assert.ok(listing.includes("drwxr-xr-x ./etc/lockvisor/hooks.d/"));
    // Nothing that is to survive an upgrade or belongs to a run.
    assert.deepEqual(listing.filter((line) => /\.\/(var|run)\//.test(line)), []);
    assert.equal(await output("dpkg-deb", ["--info", path, "conffiles"]), "/etc/lockvisor/lockvisor.toml\n");
    const sums = await output("dpkg-deb", ["--info", path, "md5sums"]);
    assert.match(sums, /^[0-9a-f]{32} {2}usr\/bin\/lockvisor$/m);

    // The same sources, another time, another builder's umask: the same package.
    const first = await Deno.readFile(path);
    await buildAgain({ version: "1.2.3", dist: `${folder}/dist`, output: folder, epoch: EPOCH });
    assert.ok(first.length > 1_000_000 && equal(first, await Deno.readFile(path)), "two builds differ");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("package: installing, upgrading, removing and purging leave guests, locks and the host's own alone", async () => {
  await using hosts = await SystemdHosts.boot("first only");
  const { one: host } = hosts;
  const names = (await buildVersions(`${hosts.shared}`, ["1.0", "1.1"])).map((path) =>
    path.replace(hosts.shared, SHARED)
  );
  const dpkg = (...args: string[]) => host.must(["dpkg", ...args]);
  const present = async (path: string) => (await host.run(["test", "-e", path])).code === 0;
  const wanted = "/etc/systemd/system/multi-user.target.wants/lockvisor.service";

  await dpkg("--install", names[0]!);
  assert.match(await host.must(["getent", "group", "lockvisor"]), /^lockvisor:x:\d{3}:$/m);
  assert.ok(await present(wanted), "the agent is enabled");
  assert.match(await host.must(["lockvisor", "version"]), /^lockvisor /);
  assert.equal(await host.must(["dpkg", "--verify", "lockvisor"]), "");

  await host.writeFile("/images/a.img", "a disk");
  await host.writeFile("/images/late.img", "a disk");
  await configureGuest(host, { name: "vm1", locks: "--disk /images/a.img", command: "/usr/bin/sleep 600" });
  await host.must(["systemctl", "start", "lockvisor-guest@vm1"]);
  const pid = await guestRunning(host, "vm1");
  await host.must(["lockvisor", "acquire", "vm1", "--disk", "/images/late.img"]);
  const before = await guestOn(host, "vm1");
  assert.deepEqual(before, { state: "running", pid, held: 5, total: 5 });
  const configuration = "# edited\n";
  await host.writeFile("/etc/lockvisor/lockvisor.toml", configuration);
  const inode = await host.must(["stat", "-c", "%i", "/usr/bin/lockvisor"]);

  await dpkg("--install", names[1]!);
  assert.match(await host.must(["dpkg-query", "-W", "lockvisor"]), /\t1\.1$/m);
  assert.notEqual(await host.must(["stat", "-c", "%i", "/usr/bin/lockvisor"]), inode);
  assert.deepEqual(await guestOn(host, "vm1"), before);
  assert.equal(await host.must(["cat", "/etc/lockvisor/lockvisor.toml"]), configuration);

  // An administrator's word counts more than an upgrade.
  await host.must(["systemctl", "disable", "--quiet", "lockvisor"]);
  await dpkg("--install", names[1]!);
  assert.equal(await present(wanted), false);

  await dpkg("--remove", "lockvisor");
  assert.equal(await present("/usr/bin/lockvisor"), false);
  assert.equal(await host.must(["cat", "/etc/lockvisor/lockvisor.toml"]), configuration);
  // The program is gone; the locks are the guest's. One without the package sees them.
  const program = `${SHARED}/dist/lockvisor`;
  const status = async () => JSON.parse(await host.must([program, "status", "--json"])).guests[0];
  assert.deepEqual((await status()).locks, { held: 5, unknown: 0, lost: 0, total: 5 });

  await dpkg("--purge", "lockvisor");
  assert.deepEqual((await status()).locks, { held: 5, unknown: 0, lost: 0, total: 5 });
  assert.equal(await present("/etc/lockvisor/lockvisor.toml"), false);
  assert.ok(await present("/etc/lockvisor/guests/vm1.conf"), "a guest's configuration is not the package's");
  assert.ok(await present("/var/lib/lockvisor/lockspace/lockspace.json"));
  const taken = await host.run([program, "run", "--name", "vm2", "--disk", "/images/late.img", "--", "true"]);
  assert.equal(taken.code, 75, taken.stderr);
});

/** In a process of its own: the umask is the whole process's, and other tests run in ours. */
async function buildAgain(source: PackageSource): Promise<void> {
  const script = `import { buildPackage, type PackageSource } from ${
    JSON.stringify(import.meta.resolve("../scripts/deb.ts"))
  };
    await buildPackage(${JSON.stringify(source)});`;
  const command = ["-c", 'umask 077; exec "$0" eval --no-check "$1"', Deno.execPath(), script];
  await output("sh", command);
}

function equal(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}
