import assert from "node:assert/strict";
import { mountedCgroups } from "./support/cgroups.ts";
import { configureGuest, guestOn, guestRunning, installOn } from "./support/installation.ts";
import { SHARED, SystemdHosts } from "./support/systemd_hosts.ts";
import { until } from "./support/until.ts";

/** One lockspace for both hosts, and images that are the same on both. */
const CONFIGURATION = `lockspace = "${SHARED}/lockspace"
[[storage]]
path = "${SHARED}/images"
id = "san1"
`;

const DISK = `${SHARED}/images/disk.img`;

Deno.test("systemd hosts: each is a host of its own, and both see the common folder and each other", async () => {
  await using hosts = await SystemdHosts.boot();
  const { one, other } = hosts;
  const ids = await Promise.all([one, other].map((host) => host.must(["cat", "/etc/machine-id"])));
  assert.notEqual(ids[0], ids[1]);
  for (const id of ids) assert.match(id, /^[0-9a-f]{32}\n$/);
  const boots = await Promise.all(
    [one, other].map((host) => host.must(["cat", "/proc/sys/kernel/random/boot_id"])),
  );
  assert.notEqual(boots[0], boots[1]);
  assert.equal(await one.must(["hostname"]), "h1\n");
  assert.equal(await other.must(["hostname"]), "h2\n");

  await one.writeFile(`${SHARED}/note`, "from one");
  assert.equal(await other.must(["cat", `${SHARED}/note`]), "from one");
  await one.writeFile("/etc/note", "of one");
  assert.equal((await other.run(["cat", "/etc/note"])).code, 1);
  // Nobody listens there, but there is somebody who says so.
  const called = await other.run([
    "curl",
    "--silent",
    "--show-error",
    "--max-time",
    "5",
    "http://10.99.0.1/",
  ]);
  assert.match(called.stderr, /Couldn't connect to server/);

  await one.powerOff();
  await one.boot();
  assert.equal(await one.must(["cat", "/etc/machine-id"]), ids[0]);
  assert.equal((await one.run(["cat", "/etc/note"])).code, 1);
});

Deno.test("systemd hosts: a host that crashes frees the disks of its guests for the other", async () => {
  await using hosts = await SystemdHosts.boot();
  const { one, other } = hosts;
  await installOn(hosts, [one, other], CONFIGURATION);
  await one.must(["lockvisor", "init", `${SHARED}/lockspace`]);
  await one.writeFile(DISK, "a disk");
  await configureGuest(one, { name: "vm1", locks: `--disk ${DISK}`, command: "/usr/bin/sleep 600" });
  await one.must(["systemctl", "start", "lockvisor-guest@vm1"]);
  const pid = await guestRunning(one, "vm1");

  const start = ["lockvisor", "run", "--name", "vm2", "--disk", DISK, "--", "echo", "started"] as const;
  const refused = await other.run(start);
  assert.equal(refused.code, 75, refused.stderr);
  assert.match(refused.stderr, new RegExp(`is locked by guest "vm1" \\(pid ${pid} on h1, exclusive`));

  await one.crash();
  assert.equal(await other.must(start), "started\n");
});

Deno.test("systemd hosts: a guest is a unit that starts and stops with its locks", async () => {
  await using hosts = await SystemdHosts.boot("first only");
  const { one } = hosts;
  await installOn(hosts, [one]);
  await one.must(["useradd", "--system", "guest"]);
  await one.writeFile("/images/a.img", "a disk");
  await one.writeFile("/images/b two.img", "a disk");
  const user = "/usr/bin/setpriv --reuid=guest --regid=guest --init-groups";
  await configureGuest(one, {
    name: "vm1",
    locks: `--disk /images/a.img --disk "/images/b two.img"`,
    command: `${user} /usr/bin/sleep 600`,
  });
  await configureGuest(one, { name: "vm2", locks: "--disk /images/a.img", command: "/usr/bin/sleep 600" });

  await one.must(["systemctl", "start", "lockvisor-guest@vm1"]);
  const pid = await guestRunning(one, "vm1");
  const show = (unit: string, property: string) =>
    one.must(["systemctl", "show", "--value", `--property=${property}`, unit]);
  assert.equal(await show("lockvisor-guest@vm1", "MainPID"), `${pid}\n`);
  assert.match(await one.must(["ps", "-o", "user=,comm=", "-p", String(pid)]), /^guest\s+sleep\n$/);

  // Another guest with the same disk is refused, once and not again and again.
  await one.run(["systemctl", "start", "lockvisor-guest@vm2"]);
  await until("vm2 has failed", async () => await show("lockvisor-guest@vm2", "ActiveState") === "failed\n");
  assert.equal(await show("lockvisor-guest@vm2", "ExecMainStatus"), "75\n");
  assert.match(
    await one.must(["journalctl", "--unit=lockvisor-guest@vm2", "--output=cat"]),
    new RegExp(`is locked by guest "vm1" \\(pid ${pid} on h1`),
  );

  await one.must(["systemctl", "stop", "lockvisor-guest@vm1"]);
  assert.match(
    await one.must(["journalctl", "--unit=lockvisor-guest@vm1", "--output=cat"]),
    /guest "vm1" has stopped \(by SIGTERM, .*\); its 5 locks are free/,
  );
  assert.equal(await guestOn(one, "vm1"), undefined);
  assert.equal(await show("lockvisor-guest@vm1", "ActiveState"), "inactive\n");
  await one.must(["systemctl", "start", "lockvisor-guest@vm2"]);
  await guestRunning(one, "vm2");
  // Without its configuration a guest is not even tried, let alone again and again.
  assert.notEqual((await one.run(["systemctl", "start", "lockvisor-guest@vm3"])).code, 0);
  assert.equal(await show("lockvisor-guest@vm3", "ActiveState"), "inactive\n");
});

Deno.test("systemd hosts: nothing of them is left when the tests are killed", async () => {
  const script = `import { SystemdHosts } from ${
    JSON.stringify(import.meta.resolve("./support/systemd_hosts.ts"))
  };
    const hosts = await SystemdHosts.boot();
    console.log(JSON.stringify({ shared: hosts.shared, name: hosts.name }));
    await new Promise(() => setInterval(() => {}, 1000));`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--no-check", script],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value = "" } = await reader.read();
  await reader.cancel();
  const { shared, name } = JSON.parse(value) as { shared: string; name: string };
  const places = [`${name}-1`, `${name}-2`].flatMap((host) => [
    `/run/netns/${host}`,
    `/run/systemd/nspawn/propagate/${host}`,
    ...mountedCgroups().all.map((hierarchy) => `${hierarchy}/${host}`),
  ]);
  for (const place of [shared, ...places]) assert.ok(isThere(place), place);

  child.kill("SIGKILL");
  await child.status;
  await until("their folder is gone, which is the last", () => !isThere(shared));
  for (const place of places) assert.equal(isThere(place), false, place);
});

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
