import assert from "node:assert/strict";
import { Cluster, type ClusterHost, startQemu } from "./support/cluster.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";

/** Whether a host would be granted a disk of the volume now. */
async function isFree(host: ClusterHost, disk: string): Promise<boolean> {
  const { code, stdout, stderr } = await host.run(["check", "--disk", host.path(disk)]);
  assert.ok(code === 0 || code === 1, stdout + stderr);
  return code === 0;
}

Deno.test("gluster: a disk that a guest has on one host is refused on the other, by the name of its holder", async () => {
  await using cluster = await Cluster.create();
  const { a, b } = cluster;
  await a.qcow2("d.qcow2");
  const guest = await startQemu(a, "vm1", "d.qcow2");
  const refused = await b.run(["run", "--name", "vm2", "--disk", b.path("d.qcow2"), "--", "true"]);
  assert.equal(refused.code, 75, refused.stderr);
  const holder = new RegExp(
    `d\\.qcow2 is locked by guest "vm1" \\(pid ${guest.pid} on hv-a, exclusive, since `,
  );
  assert.match(refused.stderr, holder);
  assert.equal(await isFree(b, "d.qcow2"), false);

  const waiting = b.run([
    "run",
    "--name",
    "vm2",
    "--wait=60s",
    "--disk",
    b.path("d.qcow2"),
    "--",
    "date",
    "+%s%3N",
  ]);
  await guest.kill();
  const killed = Date.now();
  const granted = await waiting;
  assert.equal(granted.code, 0, granted.stderr);
  const took = Number(granted.stdout) - killed;
  assert.ok(took < 5000, `the lock came ${took} ms after the guest's end`);
});

Deno.test("gluster: readonly guests share a disk across hosts, a writer is kept out of it", async () => {
  await using cluster = await Cluster.create();
  const { a, b } = cluster;
  await a.qcow2("d.qcow2");
  const start = (host: ClusterHost, name: string) =>
    host.start([
      "run",
      ...["--name", name, "--disk", `${host.path("d.qcow2")},access=readonly`, "--"],
      ...qemuCommand(host.path("d.qcow2"), { access: "readonly" }),
    ]);
  const [one, other] = [await start(a, "vm1"), await start(b, "vm2")];
  for (const host of [a, b]) {
    const writer = await host.run(["run", "--name", "vm3", "--disk", host.path("d.qcow2"), "--", "true"]);
    assert.equal(writer.code, 75, writer.stderr);
    assert.match(
      writer.stderr,
      /"vm1" .*on hv-a, readonly.* and by guest "vm2"|"vm2" .*on hv-b, readonly.* and by guest "vm1"/,
    );
  }
  await one.kill();
  assert.equal(await isFree(a, "d.qcow2"), false, "the other reader is left");
  await other.kill();
  await until("the disk is free", () => isFree(a, "d.qcow2"));
});

Deno.test("gluster: of contenders on both hosts at the same instant exactly one wins, ten times", async () => {
  await using cluster = await Cluster.create();
  const { a, b } = cluster;
  const disks = ["d0", "d1"];
  for (const disk of disks) await Deno.writeFile(a.path(disk), new Uint8Array(512));
  for (let round = 0; round < 10; round++) {
    const gate = `${a.world.directory}/gate${round}`;
    const end = `${a.world.directory}/end${round}`;
    using gateFile = await Deno.open(gate, { create: true, write: true });
    await gateFile.lock(true);
    const refused: string[] = [];
    const contenders = [a, b, a, b].map(async (host, index) => {
      const own = index < 2 ? disks : disks.toReversed();
      const result = await host.runBehind(gate, [
        "run",
        ...["--name", `vm${index}`, ...own.flatMap((disk) => ["--disk", host.path(disk)])],
        ...["--", "sh", "-c", `until test -e ${end}; do sleep 0.02; done`],
      ]);
      if (result.code === 75) refused.push(result.stderr);
      return result;
    });
    await gateFile.unlock();
    try {
      await until("three are refused", () => refused.length === 3, 60_000);
    } finally {
      await Deno.writeTextFile(end, "");
    }
    const codes = (await Promise.all(contenders)).map(({ code }) => code).sort();
    assert.deepEqual(codes, [0, 75, 75, 75], refused.join(""));
    for (const line of refused) {
      assert.match(line, /d\d is locked by (guest "vm\d" \(pid \d+ on hv-[ab], exclusive|somebody)/);
    }
  }
});

Deno.test("gluster: what the kernel does not show is told as not known, never as not held", async () => {
  await using cluster = await Cluster.create();
  const { a, b } = cluster;
  await a.qcow2("d.qcow2");
  const guest = await startQemu(a, "vm1", "d.qcow2");
  const { stdout } = await a.run(["status"]);
  assert.match(stdout, /^vm1 +running +\d+ +\S+ +0\/3 \(3 \?\) +\S+d\.qcow2$/m);
  const { guests } = await a.json(["status"]);
  assert.equal(guests[0].resources[0].locked, null);
  assert.deepEqual(await b.json(["status"]), { guests: [] });

  for (const [host, alive] of [[a, true], [b, null]] as const) {
    const { locked, generation, holders } = await host.json(["inspect", host.path("d.qcow2")]);
    assert.deepEqual([locked, generation], [true, 1]);
    assert.deepEqual(
      holders.map(({ name, pid, host, alive }: Record<string, unknown>) => [name, pid, host, alive]),
      [["vm1", guest.pid, "hv-a", alive]],
    );
  }
  const inspected = await b.run(["inspect", b.path("d.qcow2")]);
  assert.match(inspected.stdout, /holder +guest "vm1" .* not known from here whether it lives/);
  const attached = await a.json(["attach"]);
  assert.deepEqual([attached.guests[0].locked, attached.guests[0].lost], [null, []]);
  assert.deepEqual(await b.json(["attach"]), { guests: [] });

  const doctor = await a.json(["doctor"]);
  const textOf = (check: string) => doctor.checks.find((each: { check: string }) => each.check === check);
  assert.equal(textOf("filesystem").verdict, "warning");
  assert.match(
    textOf("filesystem").text,
    /do not show.*client daemon.*gluster volume set VOLUME client\.strict-locks on/,
  );
  assert.equal(textOf("locks").verdict, "ok");
  assert.match(textOf("locks").text, /of this host .* on two of them/);
  assert.deepEqual([textOf("guests").verdict, doctor.healthy], ["warning", true]);
  assert.match(textOf("guests").text, /none is known to have lost a lock; of "vm1" it cannot be known/);
});

Deno.test("gluster: locks are taken and given up for a guest that runs, and the other host sees each step", async () => {
  await using cluster = await Cluster.create();
  const { a, b } = cluster;
  for (const disk of ["d.qcow2", "e.qcow2"]) await a.qcow2(disk);
  await Deno.writeFile(a.path("f"), new Uint8Array(512));
  await startQemu(a, "vm1", "d.qcow2");
  await a.start(["run", "--name", "vm2", "--", "sleep", "600"]);
  const free = async () => {
    const disks = ["d.qcow2", "e.qcow2", "f"];
    const seen = await Promise.all(disks.map((disk) => isFree(b, disk)));
    return disks.filter((_, index) => seen[index]);
  };
  await a.json(["acquire", "vm1", "--disk", a.path("e.qcow2")]); // into QEMU
  await a.json(["acquire", "vm2", "--disk", a.path("f")]); // beside the guest
  assert.deepEqual(await free(), []);
  const held = await a.json(["attach"]);
  assert.deepEqual(held.guests.map(({ lost }: { lost: unknown[] }) => lost), [[], []]);
  await a.json(["release", "vm2", "--disk", a.path("f")]);
  assert.deepEqual(await free(), ["f"]);
  await a.json(["pause", "vm1", "--release"]);
  assert.deepEqual(await free(), ["d.qcow2", "e.qcow2", "f"]);
  await a.json(["resume", "vm1"]);
  assert.deepEqual(await free(), ["f"]);

  await a.json(["pause", "vm1", "--release"]);
  const between = await b.run(["run", "--name", "vm3", "--disk", b.path("e.qcow2"), "--", "true"]);
  assert.equal(between.code, 0, between.stderr);
  const resumed = await a.run(["resume", "vm1"]);
  assert.equal(resumed.code, 75, resumed.stderr);
  assert.match(resumed.stderr, /e\.qcow2 .*guest "vm3"/);
  await a.json(["resume", "vm1", "--accept-changes"]);
  assert.deepEqual(await free(), ["f"]);
  await a.json(["release", "vm1", "--disk", a.path("d.qcow2")]); // from the start
  assert.deepEqual(await free(), ["d.qcow2", "f"]);
});

Deno.test("gluster: gc on one host removes nothing that the other one holds", async () => {
  await using cluster = await Cluster.create();
  const { a, b } = cluster;
  await a.qcow2("d.qcow2");
  await Deno.writeFile(a.path("past"), new Uint8Array(512));
  const past = await b.run(["run", "--name", "vm0", "--disk", b.path("past"), "--", "true"]);
  assert.equal(past.code, 0, past.stderr);
  const guest = await startQemu(a, "vm1", "d.qcow2");
  const { removed, inUse, problems } = await b.json(["gc"]);
  assert.deepEqual([inUse, problems], [3, []]);
  assert.equal(removed.filter((path: string) => /\.[ab]$/.test(path)).length, 6, removed.join(" "));
  assert.equal(await isFree(b, "d.qcow2"), false);
  assert.deepEqual((await a.json(["attach"])).guests[0].lost, []);
  assert.deepEqual((await a.json(["gc"])).removed, []);
  await guest.kill();
  await until("the disk is free", () => isFree(b, "d.qcow2"));
  assert.equal((await b.json(["gc"])).inUse, 0);
});

Deno.test("gluster: stop and wait tell what became of the locks, also where the other host goes on to have one", async () => {
  await using cluster = await Cluster.create();
  const { a, b } = cluster;
  await a.qcow2("d.qcow2");
  await startQemu(a, "vm1", "d.qcow2");
  const waited = a.run(["wait", "vm1", "--timeout", "60s"]);
  const stopped = await a.json(["stop", "vm1"]);
  assert.deepEqual([stopped.outcome, stopped.by, stopped.locks.held], ["stopped", "quit", false]);
  assert.equal((await waited).code, 0);

  const reader = (host: ClusterHost, name: string) =>
    host.start([
      "run",
      ...["--name", name, "--disk", `${host.path("d.qcow2")},access=readonly`, "--", "sleep", "600"],
    ]);
  await reader(a, "vm1");
  await reader(b, "vm2");
  const shared = await a.run(["stop", "vm1"]);
  assert.equal(shared.code, 0, shared.stderr);
  assert.match(shared.stdout, /has stopped .*; whether its 3 locks are free cannot be known from here/);
  const { holders } = await a.json(["inspect", a.path("d.qcow2")]);
  assert.deepEqual(holders.map(({ name, host }: Record<string, unknown>) => [name, host]), [["vm2", "hv-b"]]);
});
