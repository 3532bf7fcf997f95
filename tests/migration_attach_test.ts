import assert from "node:assert/strict";
import type { GuestRecord } from "../lib/manager/guest_record.ts";
import { GuestStore } from "../lib/manager/guest_store.ts";
import { flockedFiles } from "./support/kernel.ts";
import { type Hosts, TwoHosts } from "./support/two_hosts.ts";
import type { World } from "./support/world.ts";

/*
 * Guests that are on their way when somebody attaches: nothing is taken again that was given up on purpose, and records
 * that were lost are made again with their migration.
 */

interface Attached {
  code: number;
  stderr: string;
  guests: {
    name: string;
    pid: number;
    state: string;
    repairs: string[];
    warnings: string[];
    lost: unknown[];
  }[];
}

async function attach(world: World, ...args: string[]): Promise<Attached> {
  const { code, stdout, stderr } = await world.run(["attach", "--json", ...args]);
  return { code, stderr, guests: JSON.parse(stdout).guests };
}

/** The records of a world, as far as notes can tell them again. */
function records(world: World): Omit<GuestRecord, "command">[] {
  return new GuestStore(world.runtimeDir).list().map((entry) => {
    assert.equal(entry.kind, "record");
    const { command: _, ...record } = (entry as { record: GuestRecord }).record;
    const grants = [...record.grants ?? []].sort((one, other) => one.key < other.key ? -1 : 1);
    const [own, ...others] = record.carriers.map((carrier) => ({
      ...carrier,
      locks: [...carrier.locks].sort((one, other) => one.key < other.key ? -1 : 1),
    }));
    return { ...record, grants, carriers: [own!, ...others] };
  });
}

/** How many lock files of a slot a process has locked. */
function slots(pid: number): { a: number; b: number } {
  const files = flockedFiles(pid);
  return {
    a: files.filter((file) => file.endsWith(".a")).length,
    b: files.filter((file) => file.endsWith(".b")).length,
  };
}

async function wipe(...worlds: World[]): Promise<void> {
  for (const { runtimeDir } of new Set(worlds)) await Deno.remove(runtimeDir, { recursive: true });
}

const EVERYWHERE: readonly Hosts[] = ["two", "one-id", "one-directory"];

for (const hosts of ["two", "one-directory"] as const) {
  Deno.test(`attach, ${hosts}: a guest on its way keeps its record and is told; nothing is taken again`, async () => {
    await using scene = await TwoHosts.create(hosts);
    const { source, destination } = scene;
    const leaving = await scene.startSleeping();
    await scene.prepare();
    const coming = await scene.comeInSleeping();
    const before = [records(source), records(destination)];
    const held = [slots(leaving.pid), slots(coming.pid)];
    assert.deepEqual(
      [held[0]!.b, held[1]!.a > 0],
      [0, hosts === "two"],
      "the host's own keys are held whole",
    );
    for (const world of new Set([source, destination])) {
      const { code, guests } = await attach(world, "vm1");
      assert.equal(code, 0);
      assert.equal(guests.length, hosts === "one-directory" ? 2 : 1);
      for (const { repairs, lost, warnings } of guests) {
        assert.deepEqual([repairs, lost], [[], []]);
        assert.match(
          warnings.join(),
          /^is (migrating to ssh:\/\/hv2|coming in from \S+); see: lockvisor migrate status$/,
        );
      }
    }
    assert.deepEqual([records(source), records(destination)], before);
    assert.deepEqual([slots(leaving.pid), slots(coming.pid)], held);
  });
}

for (const hosts of EVERYWHERE) {
  Deno.test(`attach, ${hosts}: lost records of both sides are made again, and the migration completes`, async () => {
    await using scene = await TwoHosts.create(hosts);
    const { source, destination } = scene;
    const leaving = await scene.startSleeping();
    await scene.prepare();
    const coming = await scene.comeInSleeping();
    const before = [records(source), records(destination)];
    await wipe(source, destination);
    for (const world of new Set([source, destination])) {
      const { code, stderr, guests } = await attach(world);
      assert.equal(code, 0, stderr);
      for (const { repairs } of guests) assert.deepEqual(repairs, ["made its record again from its notes"]);
    }
    // The locks of a host are found from each of its runtime directories: there both have both sides then.
    if (hosts !== "one-id") assert.deepEqual([records(source), records(destination)], before);

    assert.deepEqual((await scene.end("complete", "in")).code, 75, "the source lives");
    await leaving.kill();
    const [out, come] = [await scene.end("complete", "out"), await scene.end("complete", "in")];
    assert.deepEqual([out.code, out.outcome], [0, "completed"], out.stderr);
    assert.deepEqual([come.code, come.outcome], [0, "completed"], come.stderr);
    const held = slots(coming.pid);
    assert.deepEqual(held.a, held.b);
    const [record, ...others] = records(destination).filter(({ carriers: [{ pid }] }) => pid === coming.pid);
    assert.deepEqual([record!.state, record!.migration, others], ["running", undefined, []]);
    const { code, guests } = await attach(destination);
    assert.deepEqual([code, guests.map(({ warnings }) => warnings)], [0, [[]]]);
  });

  Deno.test(`attach, ${hosts}: lost records of both sides are made again, and the migration is cancelled`, async () => {
    await using scene = await TwoHosts.create(hosts);
    const { source, destination } = scene;
    const leaving = await scene.startSleeping();
    await scene.prepare();
    await scene.comeInSleeping();
    await wipe(source, destination);
    for (const world of new Set([source, destination])) assert.equal((await attach(world)).code, 0);
    const gone = await scene.end("cancel", "in");
    assert.deepEqual([gone.code, gone.outcome], [0, "cancelled"], gone.stderr);
    const back = await scene.end("cancel", "out");
    assert.deepEqual([back.code, back.outcome], [0, "cancelled"], back.stderr);
    const held = slots(leaving.pid);
    assert.deepEqual(held.a, held.b);
    if (hosts === "one-id") return;
    assert.equal(records(source).length, 1);
    const { code, guests } = await attach(source);
    assert.deepEqual([code, guests[0]!.warnings, guests[0]!.state], [0, [], "running"]);
  });
}

for (const hosts of ["two", "one-directory"] as const) {
  Deno.test(`attach, ${hosts}: a source that has ended is not followed to its destination, which has the other slots`, async () => {
    await using scene = await TwoHosts.create(hosts);
    const { source, destination } = scene;
    const leaving = await scene.startSleeping();
    await scene.prepare();
    const coming = await scene.comeInSleeping();
    const before = [records(source), records(destination)];
    await leaving.kill();
    for (const world of new Set([source, destination])) {
      const { code, guests } = await attach(world);
      assert.equal(code, 0);
      for (const { pid, repairs } of guests) assert.deepEqual([pid, repairs], [coming.pid, []]);
    }
    assert.deepEqual([records(source), records(destination)], before);
  });
}

for (const lost of ["own", "incoming"] as const) {
  Deno.test(`attach: within one directory the ${lost} record alone was lost, and is made again`, async () => {
    await using scene = await TwoHosts.create("one-directory");
    const { source } = scene;
    const leaving = await scene.startSleeping();
    await scene.prepare();
    await scene.comeInSleeping();
    const before = records(source);
    const store = new GuestStore(source.runtimeDir);
    await Deno.remove(store.fileOf(before[0]!.uuid, lost));
    const { code, stderr, guests } = await attach(source);
    assert.equal(code, 0, stderr);
    assert.equal(guests.filter(({ repairs }) => repairs.length > 0).length, 1);
    assert.deepEqual(records(source), before);
    await leaving.kill();
    assert.equal((await scene.end("complete", "out")).code, 0);
    assert.equal((await scene.end("complete", "in")).code, 0);
    assert.deepEqual(records(source).map(({ state }) => state), ["running"]);
  });
}

Deno.test("attach: only the record of the side that comes in is left where the source's was lost before it came", async () => {
  await using scene = await TwoHosts.create("one-directory");
  const { source } = scene;
  await scene.startSleeping();
  await scene.prepare();
  await wipe(source);
  await scene.comeInSleeping();
  assert.deepEqual(records(source).map(({ state }) => state), ["incoming"]);
  const { code, guests } = await attach(source);
  assert.deepEqual([code, guests.length], [0, 2]);
  assert.deepEqual(records(source).map(({ state }) => state), ["migrating-out", "incoming"]);
  assert.equal((await scene.end("cancel", "in")).code, 0);
  assert.equal((await scene.end("cancel", "out")).code, 0);
  assert.deepEqual(records(source).map(({ state }) => state), ["running"]);
});

Deno.test("attach: a real guest has been sent when the records are lost; it completes and is never continued", async () => {
  await using scene = await TwoHosts.create();
  const { source, destination } = scene;
  await scene.startQemu();
  await scene.prepare();
  const coming = await scene.comeInQemu();
  await scene.send();
  await wipe(source, destination);
  for (const world of [source, destination]) assert.equal((await attach(world)).code, 0);
  const refused = await scene.end("cancel", "out");
  assert.deepEqual([refused.code, refused.error?.code], [65, "data"], refused.stderr);
  const early = await scene.end("complete", "in");
  assert.deepEqual([early.code, early.outcome], [75, "waiting"], early.stderr);
  assert.equal((await scene.end("complete", "out")).code, 0);
  const done = await scene.end("complete", "in");
  assert.deepEqual([done.code, done.outcome], [0, "completed"], done.stderr);
  const held = slots(coming.pid);
  assert.deepEqual(held.a, held.b);
  assert.equal(await scene.runState("in"), "running");
});

Deno.test("attach: a source that somebody else had let go at its destination is not held for one that never ran there", async () => {
  await using scene = await TwoHosts.create();
  await scene.startSleeping();
  await scene.prepare();
  const [before] = records(scene.source);
  assert.equal(before!.migration?.role, "out");
  // As `migrate run` writes it when it prepares; that it has let the guest go stands in the record alone.
  const notes = [...before!.leaseKeys].map((key) =>
    `${scene.source.lockspace}/${key}.d/hv1.${before!.uuid}.json`
  );
  for (const file of notes) {
    const text = await Deno.readTextFile(file);
    await Deno.writeTextFile(file, text.replace(`"unwatched"`, `"held"`));
  }
  await wipe(scene.source);
  assert.equal((await attach(scene.source)).code, 0);
  assert.deepEqual(records(scene.source)[0]!.migration, before!.migration);
});
