import assert from "node:assert/strict";
import { buildPackage } from "../scripts/deb.ts";
import { configureGuest, guestOn, guestRunning, installOn } from "./support/installation.ts";
import type { SystemdHost } from "./support/systemd_host.ts";
import { SHARED, SOURCE, SystemdHosts } from "./support/systemd_hosts.ts";
import { until } from "./support/until.ts";

const SOCKET = "/run/lockvisor/lockvisor.sock";

/** What systemd knows of the agent's unit. */
async function unit(host: SystemdHost, property: string): Promise<string> {
  return (await host.must(["systemctl", "show", "--value", `--property=${property}`, "lockvisor"])).trim();
}

/** Asks the agent over its socket, as a shell script would; `as` is a user of the host. */
async function ask(
  host: SystemdHost,
  path: string,
  { as = "root", body }: { as?: string; body?: unknown } = {},
): Promise<{ code: number; status: string }> {
  const data = body === undefined ? [] : ["--json", JSON.stringify(body)];
  const { code, stdout } = await host.run([
    "setpriv",
    ...[`--reuid=${as}`, `--regid=${as}`, "--init-groups"],
    ...["curl", "--silent", "--unix-socket", SOCKET, "--output", "/dev/null", "--write-out", "%{http_code}"],
    ...[...data, `http://localhost${path}`],
  ]);
  return { code, status: stdout };
}

/** A host with the agent, and the guest vm1 of another user: two disks from its start, one that a holder keeps. */
class GuardedHost implements AsyncDisposable {
  private constructor(
    readonly hosts: SystemdHosts,
    readonly guest: { pid: number; holder: string },
  ) {}

  static async create(): Promise<GuardedHost> {
    const hosts = await SystemdHosts.boot("first only");
    try {
      const { one: host } = hosts;
      await installOn(hosts, [host], '[agent]\naudit-interval = "500ms"\n');
      await host.must(["useradd", "--system", "guest"]);
      for (const name of ["a", "b", "late"]) await host.writeFile(`/images/${name}.img`, "a disk");
      await configureGuest(host, {
        name: "vm1",
        locks: "--disk /images/a.img --disk /images/b.img",
        command: "/usr/bin/setpriv --reuid=guest --regid=guest --init-groups /usr/bin/sleep 600",
      });
      await host.must(["systemctl", "start", "lockvisor-guest@vm1"]); // wants the agent
      const pid = await guestRunning(host, "vm1");
      await until("the agent is active", async () => await unit(host, "ActiveState") === "active");
      // Through the agent, so that the holder is in its cgroup.
      const body = { disks: [{ path: "/images/late.img" }] };
      assert.deepEqual(await ask(host, "/v1/guests/vm1/acquire", { body }), { code: 0, status: "200" });
      let holder = "";
      await until("the holder has named itself", async () => {
        holder = (await host.run(["pgrep", "--exact", "lockvisor-hold"])).stdout.trim();
        return holder !== "";
      });
      const place = await host.must(["cat", `/proc/${holder}/cgroup`]);
      assert.match(place, /\/system\.slice\/lockvisor\.service$/m);
      const guarded = new GuardedHost(hosts, { pid, holder });
      await guarded.assertUntouched("at the beginning");
      return guarded;
    } catch (error) {
      await hosts[Symbol.asyncDispose]();
      throw error;
    }
  }

  get host(): SystemdHost {
    return this.hosts.one;
  }

  /** The same guest, the same holder, and every lock. */
  async assertUntouched(when: string): Promise<void> {
    const { pid, holder } = this.guest;
    const found = { ...await guestOn(this.host, "vm1"), holder: await this.#holder() };
    assert.deepEqual(found, { state: "running", pid, held: 7, total: 7, holder }, when);
    for (const name of ["a", "b", "late"]) {
      const disk = `/images/${name}.img`;
      const { code } = await this.host.run(["lockvisor", "check", "--disk", disk]);
      assert.equal(code, 1, `${when}: ${disk} is locked`);
    }
  }

  async #holder(): Promise<string> {
    return (await this.host.run(["pgrep", "--exact", "lockvisor-hold"])).stdout.trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hosts[Symbol.asyncDispose]();
  }
}

Deno.test("agent under systemd: it says when it is ready and how its guests are, and reads its configuration anew", async () => {
  await using guarded = await GuardedHost.create();
  const { host } = guarded;
  assert.equal(await unit(host, "Type"), "notify");
  assert.equal(await unit(host, "SubState"), "running");
  await until(
    "its status tells of the guest",
    async () =>
      /^ +Status: "1 guest, all with their locks"$/m.test(
        await host.must(["systemctl", "status", "--no-pager", "lockvisor"]),
      ),
  );
  const pid = await unit(host, "MainPID");
  await host.writeFile("/etc/lockvisor/lockvisor.toml", '[agent]\naudit-interval = "1s"\n');
  await host.must(["systemctl", "reload", "lockvisor"]);
  const journal = () => host.must(["journalctl", "--unit=lockvisor", "--output=cat"]);
  await until("it has read its configuration anew", async () => (await journal()).includes("was read anew"));
  assert.equal(await unit(host, "MainPID"), pid);
  await until("it is active again", async () => await unit(host, "ActiveState") === "active");
  await guarded.assertUntouched("after the reload");
});

Deno.test("agent under systemd: its socket is for root and the group lockvisor", async () => {
  await using guarded = await GuardedHost.create();
  const { host } = guarded;
  await host.must(["useradd", "--system", "--groups=lockvisor", "member"]);
  await host.must(["useradd", "--system", "stranger"]);
  assert.equal(await host.must(["stat", "-c", "%a %U:%G", SOCKET]), "660 root:lockvisor\n");
  for (const as of ["root", "member"]) {
    assert.deepEqual(await ask(host, "/v1/guests", { as }), { code: 0, status: "200" }, as);
  }
  const couldNotConnect = { code: 7, status: "000" };
  assert.deepEqual(await ask(host, "/v1/guests", { as: "stranger" }), couldNotConnect);
  for (
    const path of ["/run/lockvisor/guests", "/run/lockvisor/guests.lock", "/var/lib/lockvisor/lockspace"]
  ) {
    const command = [
      "setpriv",
      "--reuid=member",
      "--regid=member",
      "--init-groups",
      "test",
      "-r",
      path,
    ] as const;
    assert.equal((await host.run(command)).code, 1, path);
  }
});

Deno.test("agent under systemd: a start finds the runtime directory as a guest or another agent has left it", async () => {
  await using guarded = await GuardedHost.create();
  const { host } = guarded;
  await host.must(["useradd", "--system", "--groups=lockvisor", "member"]);
  for (const [mode, group] of [["0700", "root"], ["0710", "lockvisor"]] as const) {
    await host.must(["systemctl", "stop", "lockvisor"]);
    await host.must(["chgrp", group, "/run/lockvisor"]);
    await host.must(["chmod", mode, "/run/lockvisor"]);
    await host.must(["systemctl", "start", "lockvisor"]);
    assert.deepEqual(await ask(host, "/v1/guests", { as: "member" }), { code: 0, status: "200" }, mode);
    assert.equal(await host.must(["stat", "-c", "%a %U:%G", SOCKET]), "660 root:lockvisor\n");
    assert.equal(await host.must(["stat", "-c", "%a %U", "/run/lockvisor/guests"]), "700 root\n");
    await guarded.assertUntouched(`after the directory was ${mode} root:${group}`);
  }
});

Deno.test("agent under systemd: the watchdog exchanges one that hangs, and systemd one that was killed", async () => {
  await using guarded = await GuardedHost.create();
  const { host } = guarded;
  await host.writeFile("/etc/systemd/system/lockvisor.service.d/soon.conf", "[Service]\nWatchdogSec=2s\n");
  await host.must(["systemctl", "daemon-reload"]);
  await host.must(["systemctl", "restart", "lockvisor"]);
  const exchanged = async (signal: string, result: RegExp) => {
    const before = await unit(host, "MainPID");
    await host.must(["kill", `-${signal}`, before]);
    await until(`systemd has exchanged the agent that got ${signal}`, async () => {
      const [pid, state] = [await unit(host, "MainPID"), await unit(host, "ActiveState")];
      return pid !== before && pid !== "0" && state === "active";
    }, 60_000);
    assert.match(await host.must(["journalctl", "--unit=lockvisor", "--output=cat"]), result);
    assert.deepEqual(await ask(host, "/v1/guests"), { code: 0, status: "200" });
    await guarded.assertUntouched(`after ${signal}`);
  };
  await exchanged("STOP", /Watchdog timeout \(limit 2s\)!/);
  await exchanged("KILL", /Main process exited, code=killed, status=9\/KILL/);
});

Deno.test("agent under systemd: neither its restart nor its stop touches guest, holder or locks", async () => {
  await using guarded = await GuardedHost.create();
  const { host } = guarded;
  const before = await unit(host, "MainPID");
  await host.must(["systemctl", "restart", "lockvisor"]);
  assert.notEqual(await unit(host, "MainPID"), before);
  await guarded.assertUntouched("after the restart");

  await host.must(["systemctl", "stop", "lockvisor"]);
  assert.equal(await unit(host, "ActiveState"), "inactive");
  await guarded.assertUntouched("while it is stopped");
  assert.equal((await host.run(["test", "-e", SOCKET])).code, 1);

  await host.must(["systemctl", "start", "lockvisor"]);
  await guarded.assertUntouched("after the start");
  // What an agent before it has locked, it gives up.
  const body = { disks: [{ path: "/images/late.img" }] };
  assert.deepEqual(await ask(host, "/v1/guests/vm1/release", { body }), { code: 0, status: "200" });
  await host.must(["lockvisor", "check", "--disk", "/images/late.img"]);
});

Deno.test("agent under systemd: uninstalling stops it, and nothing else", async () => {
  await using guarded = await GuardedHost.create();
  const { host } = guarded;
  await host.must(["systemctl", "enable", "--quiet", "lockvisor"]);
  await host.must([`${SOURCE}/scripts/uninstall.sh`]);
  assert.notEqual((await host.run(["systemctl", "is-active", "--quiet", "lockvisor"])).code, 0);
  for (
    const path of ["/usr/bin/lockvisor", "/etc/systemd/system/multi-user.target.wants/lockvisor.service"]
  ) {
    assert.equal((await host.run(["test", "-e", path])).code, 1, path);
  }
  await host.must(["install", "-m", "0755", `${SHARED}/dist/lockvisor`, "/usr/local/bin/"]);
  await guarded.assertUntouched("after it was uninstalled");
});

Deno.test("agent under systemd: an upgrade of the package exchanges it under running guests", async () => {
  await using guarded = await GuardedHost.create();
  const { host, hosts } = guarded;
  const dist = `${hosts.shared}/dist`;
  let before = await unit(host, "MainPID");
  for (const version of ["1.0", "1.1"]) {
    const path = await buildPackage({ version, dist, output: hosts.shared, epoch: 1_700_000_000 });
    await host.must(["dpkg", "--install", "--force-confold", path.replace(hosts.shared, SHARED)]);
    const after = await unit(host, "MainPID");
    assert.notEqual(after, before);
    assert.equal(await unit(host, "ActiveState"), "active");
    assert.equal(await host.must(["readlink", `/proc/${after}/exe`]), "/usr/bin/lockvisor\n", version);
    await guarded.assertUntouched(`after the installation of ${version}`);
    before = after;
  }
  await host.must(["dpkg", "--remove", "lockvisor"]);
  assert.equal(await unit(host, "ActiveState"), "inactive");
  await host.must(["install", "-m", "0755", `${SHARED}/dist/lockvisor`, "/usr/local/bin/"]);
  await guarded.assertUntouched("after the removal");
});
