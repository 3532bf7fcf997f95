import assert from "node:assert/strict";
import type { Access } from "../../lib/access.ts";
import type { HotplugReport } from "../../lib/manager/hotplug_plan.ts";
import { refusal } from "../support/refusal.ts";
import { until } from "../support/until.ts";
import { World } from "../support/world.ts";
import { ManagerProcess } from "../support/manager_process.ts";
import type { Candidate } from "./candidate.ts";
import { isLeaseHeld } from "./kernel_view.ts";
import { attachTo, locksOf, recordOf, startGuest, stateOf, withRunningGuest } from "./running_guest.ts";

/** What was done about each resource, as words. */
function stepsOf({ done }: HotplugReport): string[] {
  return done.map(({ kind }) => kind);
}

/** Locks for a guest that runs, for drivers that declare `hotplug`. */
export function testHotplug(candidate: Candidate): void {
  const { definition: { name }, keepsOut } = candidate;
  const excludes = keepsOut === "resources";

  Deno.test(`${name}: disks and leases are locked for a guest that runs, once, and released again`, () =>
    withRunningGuest(candidate, () => [], async ({ world, manager }) => {
      const disk = await world.disk("a");
      const before = locksOf(world, "vm1");
      assert.deepEqual(stepsOf(await manager.call("acquireResource", "disk", disk, "exclusive")), ["lock"]);
      assert.deepEqual(stepsOf(await manager.call("acquireResource", "lease", "cluster:db", "shared")), [
        "lock",
      ]);
      assert.equal(isLeaseHeld(world, "cluster:db"), excludes);
      assert.equal(locksOf(world, "vm1").length > before.length, excludes);
      const names = () => recordOf(world, "vm1").resources.map(({ name }) => name);
      assert.deepEqual(names(), [disk, "cluster:db"]);
      assert.deepEqual((await manager.call("record")).resources.map(({ name }) => name), names());
      const state = stateOf(world, "vm1");
      assert.deepEqual(stepsOf(await manager.call("acquireResource", "disk", disk, "exclusive")), ["held"]);
      assert.deepEqual(recordOf(world, "vm1").resources.length, 2);
      assert.deepEqual(stateOf(world, "vm1"), state, "the same again changes nothing");
      const otherwise = () => manager.call("acquireResource", "disk", disk, "readonly");
      assert.equal(await refusal(otherwise, /disk .*\/a/), "data");
      assert.deepEqual(stateOf(world, "vm1"), state);

      await Deno.remove(disk); // a disk that was deleted after its unplug is still known by its name
      const released = await manager.call("releaseResources", [
        { type: "disk", name: disk, access: "exclusive" },
        { type: "lease", name: "cluster:db", access: "shared" },
      ]);
      assert.deepEqual([stepsOf(released), released.warnings], [["unlock", "unlock"], []]);
      assert.deepEqual(locksOf(world, "vm1"), before);
      assert.equal(isLeaseHeld(world, "cluster:db"), false);
      assert.deepEqual(names(), []);
      assert.deepEqual((await manager.call("record")).resources, []);
      const again = await manager.call("releaseResource", "lease", "cluster:db", "shared");
      assert.deepEqual(stepsOf(again), ["not-held"]);
      assert.match(again.warnings.join(), /lease cluster:db is not held by guest "vm1"/);
    }));

  Deno.test(`${name}: what a guest has gets another access, all or none, and lets others in or keeps them out`, () =>
    withRunningGuest(candidate, () => ["--lease", "cluster:first"], async ({ world, manager, plugin }) => {
      await manager.call("acquireResource", "lease", "cluster:later", "exclusive");
      const of = (access: Access, ...keys: string[]) =>
        keys.map((key) => ({ type: "lease" as const, name: `cluster:${key}`, access }));
      const change = (access: Access, ...keys: string[]) => manager.call("changeAccess", of(access, ...keys));
      const accesses = () => recordOf(world, "vm1").resources.map(({ access }) => access);
      const locks = locksOf(world, "vm1");
      assert.deepEqual(stepsOf(await change("readonly", "first", "later")), ["changed", "changed"]);
      assert.deepEqual(stepsOf(await change("readonly", "later")), ["held"]);
      assert.deepEqual(stepsOf(await change("shared", "first")), ["changed"]);
      assert.deepEqual(accesses(), ["shared", "readonly"]);
      assert.deepEqual((await manager.call("record")).resources.map(({ access }) => access), accesses());
      assert.deepEqual(locksOf(world, "vm1"), locks);

      const reader = await startGuest(world, { plugin, name: "vm2" }, [
        "--lease",
        "cluster:later,access=shared",
      ]);
      if (excludes) {
        const says = new RegExp(`^lease cluster:later is locked by guest "vm2" \\(pid ${reader.pid}\\b`);
        assert.equal(await refusal(() => change("exclusive", "first", "later"), says), "locked");
        assert.deepEqual(accesses(), ["shared", "readonly"]);
        assert.deepEqual(locksOf(world, "vm1"), locks);
        await reader.kill();
      }
      assert.deepEqual(stepsOf(await change("exclusive", "first", "later")), ["changed", "changed"]);
      assert.deepEqual(accesses(), ["exclusive", "exclusive"]);
      assert.deepEqual(locksOf(world, "vm1"), locks);
      const { code } = await world.run([
        ...["run", "--plugin", plugin, "--name", "vm3"],
        ...["--lease", "cluster:first,access=readonly", "--", "true"],
      ]);
      assert.equal(code, excludes ? 75 : 0);
      assert.equal(
        await refusal(() => change("shared", "other"), /cluster:other is none that guest "vm1" has/),
        "data",
      );
    }));

  Deno.test(`${name}: of several resources all are locked for a guest that runs, or none`, () =>
    withRunningGuest(candidate, () => [], async ({ world, manager, plugin }) => {
      const holder = await startGuest(world, { plugin, name: "vm2" }, ["--lease", "cluster:b"]);
      const wanted = ["a", "b", "c"].map((key) => ({
        type: "lease" as const,
        name: `cluster:${key}`,
        access: "exclusive" as const,
      }));
      const before = { ...recordOf(world, "vm1"), locks: locksOf(world, "vm1") };
      if (excludes) {
        const says = new RegExp(`^lease cluster:b is locked by guest "vm2" \\(pid ${holder.pid}\\b`);
        assert.equal(await refusal(() => manager.call("acquireResources", wanted), says), "locked");
        assert.deepEqual({ ...recordOf(world, "vm1"), locks: locksOf(world, "vm1") }, before);
        for (const key of ["a", "c"]) assert.equal(isLeaseHeld(world, `cluster:${key}`), false, key);
        await holder.kill();
      }
      const report = await manager.call("acquireResources", wanted);
      assert.deepEqual(stepsOf(report), ["lock", "lock", "lock"]);
      for (const key of ["a", "b", "c"]) assert.equal(isLeaseHeld(world, `cluster:${key}`), excludes, key);
    }));

  Deno.test(`${name}: what was locked at the start is released too, and what was locked later ends with the guest`, () =>
    withRunningGuest(candidate, () => ["--lease", "cluster:first"], async ({ world, guest, manager }) => {
      await manager.call("acquireResource", "lease", "cluster:later", "exclusive");
      assert.equal(isLeaseHeld(world, "cluster:first"), excludes);
      assert.deepEqual(
        stepsOf(await manager.call("releaseResource", "lease", "cluster:first", "exclusive")),
        ["unlock"],
      );
      assert.equal(isLeaseHeld(world, "cluster:first"), false);
      assert.equal(isLeaseHeld(world, "cluster:later"), excludes);
      await guest.kill();
      await until("the later lock ends with the guest", () => !isLeaseHeld(world, "cluster:later"));
      const late = () => manager.call("acquireResource", "lease", "cluster:late", "exclusive");
      assert.equal(await refusal(late, /guest "vm1" does not run any more/), "data");
      await manager.call("shutdown");
    }));

  Deno.test(`${name}: a process that runs already is adopted, once`, async () => {
    await using world = await World.create();
    const plugin = await candidate.install(world);
    await using process = ManagerProcess.start(world, plugin);
    const child = new Deno.Command("sleep", { args: ["60"], stdin: "null", stdout: "null" }).spawn();
    try {
      const adopt = async (name: string) => {
        const manager = await process.newManager("attach");
        await manager.call("setParameter", "name", name);
        await manager.call("setParameter", "pid", child.pid);
        await manager.call("registerResource", "lease", "cluster:db", "exclusive");
        return { manager, report: await manager.call("adoptObject") };
      };
      const { manager, report } = await adopt("vm1");
      assert.deepEqual(stepsOf(report), ["lock"]);
      assert.equal(await manager.call("child"), child.pid);
      assert.equal(isLeaseHeld(world, "cluster:db"), excludes);
      assert.deepEqual(stepsOf((await adopt("vm1")).report), ["held"]);
      assert.equal(await refusal(() => adopt("vm2"), /is guest "vm1" .*already/), "data");
      assert.equal(await (await attachTo(process, "vm1")).call("child"), child.pid);
    } finally {
      child.kill("SIGKILL");
      await child.status;
    }
    await until("its locks end with it", () => !isLeaseHeld(world, "cluster:db"));
  });
}
