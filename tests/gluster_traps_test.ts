import assert from "node:assert/strict";
import { Cluster, type ClusterHost, startQemu } from "./support/cluster.ts";
import { qemuCommand } from "./support/qemu.ts";
import { runBounded } from "./support/refused.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

const CUT_OFF = /its filesystem is cut off: .*(mount it anew|umount -l)/;

/** A guest's view in `status --json`, and the table's line for people. */
async function statusOf(host: ClusterHost, guest: string) {
  const { stdout } = await host.run(["status", guest]);
  const { guests } = JSON.parse((await host.run(["status", guest, "--json"])).stdout);
  return { line: stdout.split("\n")[1] ?? "", state: guests[0].state, locked: guests[0].resources[0].locked };
}

/** `attach` that must find a guest without its locks. */
async function assertLost(host: ClusterHost, guest: string, pid: number): Promise<void> {
  const { code, stderr } = await host.run(["attach", guest]);
  assert.equal(code, 75, stderr);
  assert.match(
    stderr,
    new RegExp(`guest "${guest}" \\(pid ${pid}\\) has lost its locks on .*disk .*d\\.qcow2`),
  );
  const doctor = await host.run(["doctor"]);
  assert.match(doctor.stdout, new RegExp(`^failure +guests +guest "${guest}" .* of its 3 locks`, "m"));
}

async function doctorOf(host: ClusterHost) {
  const { code, stdout } = await host.run(["doctor", "--json"]);
  const { checks } = JSON.parse(stdout);
  const find = (name: string) => checks.find(({ check }: { check: string }) => check === name);
  return { code, lockspace: find("lockspace"), guests: find("guests") };
}

Deno.test("gluster: the client's death frees the locks of a guest that lives, and nothing here says it holds them", async () => {
  await using cluster = await Cluster.create();
  const { a, b, volume } = cluster;
  await a.qcow2("d.qcow2");
  const guest = await startQemu(a, "vm1", "d.qcow2");
  await a.mount.killClient();

  const status = await a.run(["status"]);
  assert.equal(status.code, 74, status.stdout);
  assert.match(status.stdout, /^vm1 .* 0\/3 \(3 \?\) /m, "the guest is told all the same");
  assert.match(status.stderr, CUT_OFF);
  assert.equal((await statusOf(a, "vm1")).locked, null);
  const words: [string[], number][] = [
    [["attach"], 74],
    [["inspect", a.path("d.qcow2")], 74],
    [["check", "--disk", a.path("d.qcow2")], 74],
    [["run", "--name", "vm9", "--disk", a.path("d.qcow2"), "--", "true"], 74],
    [["run", "--name", "vm9", "--disk", a.world.configFile, "--", "true"], 74],
    [["acquire", "vm1", "--disk", a.world.configFile], 74],
    [["release", "vm1", "--disk", a.path("d.qcow2")], 74],
    [["pause", "vm1", "--release"], 74],
    [["resume", "vm1"], 74],
    [["break", a.path("d.qcow2"), "--reason", "test"], 74],
    [["gc"], 74],
    [["init", a.lockspace], 74],
  ];
  for (const [args, code] of words) {
    const result = await a.run(args);
    assert.equal(result.code, code, `${args.join(" ")}: ${result.stderr}`);
    assert.match(result.stderr, CUT_OFF, args.join(" "));
    assert.equal(result.stdout, "");
  }
  const doctor = await doctorOf(a);
  assert.equal(doctor.code, 1);
  for (const { verdict, text } of [doctor.lockspace, doctor.guests]) {
    assert.equal(verdict, "failure");
    assert.match(text, CUT_OFF);
  }
  assert.ok(Deno.statSync(`/proc/${guest.pid}`).isDirectory, "the guest lives");

  // The other host gets the disk, though the first one's guest has never let go of it.
  await b.start(["run", "--name", "vm2", "--wait=60s", "--disk", b.path("d.qcow2"), "--", "sleep", "600"]);

  // Mounted anew, the first host sees that its guest's descriptors lead nowhere.
  await a.mount.unmount();
  const unmounted = await a.run(["status"]);
  assert.equal(unmounted.code, 78, unmounted.stderr);
  assert.match(unmounted.stderr, /is its filesystem mounted\?/);
  await volume.mount("a", { id: "gv0" });
  assert.match((await statusOf(a, "vm1")).line, / 0\/3 +\S+d\.qcow2$/);
  await assertLost(a, "vm1", guest.pid);
  const refused = await a.run(["acquire", "vm1", "--disk", a.path("d.qcow2")]);
  assert.notEqual(refused.code, 70, refused.stderr);
  const killed = await a.run(["attach", "--on-lost", "kill"]);
  assert.equal(killed.code, 0, killed.stderr);
  assert.match(killed.stderr, /it was killed/);
});

Deno.test("gluster: a guest that ended while its lockspace was cut off is stopped, its locks are not known", async () => {
  await using cluster = await Cluster.create();
  const { a } = cluster;
  await a.qcow2("d.qcow2");
  await a.start(["run", "--name", "vm1", "--disk", a.path("d.qcow2"), "--", "sleep", "600"]);
  await a.mount.killClient();
  const stopped = await a.run(["stop", "vm1"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.match(
    stopped.stdout,
    /"vm1" has stopped .*; whether its 3 locks are free cannot be known from here/,
  );
  assert.equal((await a.run(["status"])).stdout, "no guests\n");
});

Deno.test("gluster: a restarted brick has forgotten the locks in silence, and status and attach find out", async () => {
  await using cluster = await Cluster.create({ strictLocks: "off" });
  const { a, b, volume } = cluster;
  await a.qcow2("d.qcow2");
  const guest = await a.start(["run", "--name", "vm1", "--disk", a.path("d.qcow2"), "--", "sleep", "600"]);
  await volume.restartBrick();
  await until("both hosts are back", () => [a, b].every(isBack), 60_000);
  assert.match((await statusOf(a, "vm1")).line, / 0\/3 +\S+d\.qcow2$/, "nobody has the lock, so it does not");
  const other = await b.start(["run", "--name", "vm2", "--disk", b.path("d.qcow2"), "--", "sleep", "600"]);
  assert.match((await statusOf(a, "vm1")).line, / 0\/3 +\S+d\.qcow2$/, "another host was granted it since");
  await assertLost(a, "vm1", guest.pid);
  const refused = await a.run(["run", "--name", "vm3", "--disk", a.path("d.qcow2"), "--", "true"]);
  assert.equal(refused.code, 75, refused.stderr);
  assert.match(refused.stderr, /by guest "vm2" \(pid \d+ on hv-b/);

  // When the other one is gone, the guest gets its disk again.
  await other.kill();
  await until(
    "the disk is free",
    async () => (await b.run(["check", "--disk", b.path("d.qcow2")])).code === 0,
  );
  await a.json(["release", "vm1", "--disk", a.path("d.qcow2")]);
  await a.json(["acquire", "vm1", "--disk", a.path("d.qcow2")]);
  assert.equal((await b.run(["check", "--disk", b.path("d.qcow2")])).code, 1);
});

Deno.test("gluster: with strict-locks a restarted brick makes the guest's descriptors fail, and that tells the loss", async () => {
  await using cluster = await Cluster.create({ strictLocks: "on" });
  const { a, b, volume } = cluster;
  await a.qcow2("d.qcow2");
  const guest = await a.start(["run", "--name", "vm1", "--disk", a.path("d.qcow2"), "--", "sleep", "600"]);
  await volume.restartBrick();
  await until("both hosts are back", () => [a, b].every(isBack), 60_000);
  assert.match((await statusOf(a, "vm1")).line, / 0\/3 +\S+d\.qcow2$/);
  await assertLost(a, "vm1", guest.pid);
  const refused = await a.run(["run", "--name", "vm3", "--disk", a.path("d.qcow2"), "--", "true"]);
  assert.equal(refused.code, 74, refused.stderr);
  assert.match(refused.stderr, /has forgotten the lock .*; end the guest that has it open/);
  await guest.kill();
  const again = await a.run([
    "run",
    "--name",
    "vm3",
    "--wait=60s",
    "--disk",
    a.path("d.qcow2"),
    "--",
    "true",
  ]);
  assert.equal(again.code, 0, again.stderr);
});

Deno.test("gluster: the lock of a fenced host is broken though its storage server keeps it, and the host learns of it", async () => {
  await using cluster = await Cluster.create();
  const { a, b } = cluster;
  await a.qcow2("d.qcow2");
  const guest = await startQemu(a, "vm1", "d.qcow2");
  a.mount.freezeClient(); // for the brick host a goes on living, and keeps its locks
  const disk = b.path("d.qcow2");
  const reason = ["--reason", "power was cut"];
  const kept = await b.run(["break", disk, ...reason]);
  assert.equal(kept.code, 75, kept.stderr);
  assert.match(kept.stderr, new RegExp(`guest "vm1" \\(pid ${guest.pid} on hv-a, .*--host-is-fenced hv-a`));
  const { generation: before } = await b.json(["inspect", disk]);
  const { broken } = await b.json(["break", disk, ...reason, "--host-is-fenced", "hv-a"]);
  assert.equal(broken.length, 2);
  const { generation: after, locked } = await b.json(["inspect", disk]);
  assert.deepEqual([after, locked], [before + 1, false]);
  const log = (await Deno.readTextFile(`${b.lockspace}/audit.log`)).trim().split("\n");
  assert.equal(log.length, 1);
  const entry = JSON.parse(log[0]!);
  assert.deepEqual(
    [entry.reason, entry.fenced, entry.host.id, entry.holders[0].guest, entry.holders[0].host],
    ["power was cut", ["hv-a"], "hv-b", "vm1", "hv-a"],
  );
  // The server keeps QEMU's own locks on the image too, and these nobody but the server can break.
  const qemu = qemuCommand(disk);
  const withOwnLocks = await b.run(["run", "--name", "vm2", "--disk", disk, "--", ...qemu]);
  assert.match(withOwnLocks.stderr, /Failed to get .* lock/);
  const next = await startQemu(b, "vm2", "d.qcow2", { imageLocks: "off" });

  a.mount.thawClient(); // the host was not dead at all
  await until("host a is back", () => isBack(a), 60_000);
  assert.match(
    (await statusOf(a, "vm1")).line,
    / 0\/3 \(1 \?\) /,
    "it may have the lease on itself, but no disk",
  );
  assert.equal((await statusOf(a, "vm1")).locked, false);
  await assertLost(a, "vm1", guest.pid);
  const refused = await a.run(["run", "--name", "vm3", "--disk", a.path("d.qcow2"), "--", "true"]);
  assert.match(refused.stderr, new RegExp(`by guest "vm2" \\(pid ${next.pid} on hv-b`));
  await a.run(["pause", "vm1", "--release"]);
  const resumed = await a.run(["resume", "vm1"]);
  assert.equal(resumed.code, 65, resumed.stderr);
  assert.match(resumed.stderr, /the lock file of disk .* was removed/);
  assert.equal((await b.run(["check", "--disk", disk])).code, 1, "the new guest keeps its lock");
  assert.equal((await a.run(["attach", "vm1", "--on-lost", "kill"])).code, 0);
});

Deno.test("gluster: hosts whose mounts have no common name exclude each other by declared storage", async () => {
  await using cluster = await Cluster.create();
  const { a, b, volume } = cluster;
  const nameless = await volume.mount("c");
  assert.match(nameless.source, /\(null\)/);
  await Deno.writeFile(a.path("d"), new Uint8Array(512));
  await using c = await World.create({ hostId: "hv-c", lockspace: `${nameless.path}/lockspace` });
  const storage = (path: string) => ({ LOCKVISOR_STORAGE: `san1=${path}` });
  const keysOf = async (result: Promise<{ stdout: string; stderr: string }>) => {
    const { stdout, stderr } = await result;
    assert.equal(stderr, "");
    return JSON.parse(stdout).resource.identities.map(({ key }: { key: string }) => key);
  };
  const [here, there] = [`${a.path("d")}`, `${nameless.path}/d`];
  const shared = (keys: string[], others: string[]) => keys.filter((key) => others.includes(key)).length;
  const own = await keysOf(a.run(["inspect", "--json", here]));
  assert.equal(
    shared(own, await keysOf(b.run(["inspect", "--json", b.path("d")]))),
    2,
    "by the volume's name",
  );
  assert.equal(shared(own, await keysOf(runBounded(c, ["inspect", "--json", there]))), 0);
  const declared = await keysOf(a.run(["inspect", "--json", here], storage(a.mount.path)));
  const elsewhere = await keysOf(runBounded(c, ["inspect", "--json", there], storage(nameless.path)));
  assert.equal(shared(declared, elsewhere), 2, "path and inode in the storage");
});

/** Whether a host's client is connected again. */
function isBack({ lockspace }: ClusterHost): boolean {
  try {
    return Deno.statSync(`${lockspace}/lockspace.json`).isFile;
  } catch {
    return false;
  }
}
