import assert from "node:assert/strict";
import { formatLockState, parseLockState } from "../../lib/manager/lock_state.ts";
import { refusal } from "../support/refusal.ts";
import type { Candidate } from "./candidate.ts";
import { isLeaseHeld } from "./kernel_view.ts";
import { locksOf, recordOf, startGuest, stateOf, withRunningGuest } from "./running_guest.ts";

const LEASES = ["--lease", "cluster:db", "--lease", "cluster:logs,access=shared"];
const NO_KEY = "0".repeat(64);

/** Pausing with and without locks, for drivers that declare `pause`. */
export function testPause(candidate: Candidate): void {
  const { definition: { name }, keepsOut } = candidate;
  const excludes = keepsOut === "resources";

  Deno.test(`${name}: a paused guest keeps its locks, and inquire tells of them`, () =>
    withRunningGuest(candidate, () => LEASES, async ({ world, manager }) => {
      const locks = locksOf(world, "vm1");
      const state = await manager.call("inquire");
      assert.equal(formatLockState(parseLockState(state)), state, "it is read as it was written");
      assert.equal(parseLockState(state).length, excludes ? 2 : 0);
      assert.deepEqual(parseLockState(await manager.call("pause", "kept")), []);
      assert.equal(recordOf(world, "vm1").state, "paused");
      assert.deepEqual(locksOf(world, "vm1"), locks);
      await manager.call("resume", { changes: "refuse" });
      assert.equal(recordOf(world, "vm1").state, "running");
      assert.equal((await manager.call("record")).state, "running");
      assert.deepEqual(locksOf(world, "vm1"), locks);
    }));

  Deno.test(`${name}: a paused guest gives its locks up, and takes them back with or without their state`, () =>
    withRunningGuest(candidate, () => LEASES, async ({ world, manager }) => {
      const locks = locksOf(world, "vm1");
      for (const told of ["told", "recorded"]) {
        const before = await manager.call("inquire");
        const state = await manager.call("pause", "released");
        assert.equal(state, before, "what is given up is what inquire told");
        assert.equal(await manager.call("inquire"), state, "and is told still");
        assert.equal(isLeaseHeld(world, "cluster:db"), false);
        assert.equal(locksOf(world, "vm1").length > 0, excludes, "the lease on itself stays");
        assert.equal(await manager.call("pause", "released"), state, "again changes nothing");
        await manager.call("resume", told === "told" ? { changes: "refuse", state } : { changes: "refuse" });
        assert.deepEqual(locksOf(world, "vm1"), locks);
        assert.deepEqual(recordOf(world, "vm1").givenUp, []);
        assert.equal(recordOf(world, "vm1").state, "running");
      }
    }));

  Deno.test(`${name}: a state that is none, or speaks of others' keys, is refused and changes nothing`, () =>
    withRunningGuest(candidate, () => LEASES, async ({ world, manager }) => {
      await manager.call("pause", "released");
      const before = stateOf(world, "vm1");
      for (
        const [state, says] of [["nonsense", /is not the state of/], [
          `1 ${NO_KEY}:shared:7`,
          /does not have/,
        ]] as const
      ) {
        const resume = () => manager.call("resume", { changes: "accept", state });
        assert.equal(await refusal(resume, says), "data");
        assert.deepEqual(withoutLock(stateOf(world, "vm1")), withoutLock(before));
      }
      await manager.call("resume", { changes: "refuse" });
    }));

  if (!excludes) return;

  Deno.test(`${name}: who had a given-up disk in between is named, and the guest stays paused unless that is accepted`, () =>
    withRunningGuest(candidate, () => LEASES, async ({ world, manager, plugin }) => {
      const locks = locksOf(world, "vm1");
      const state = await manager.call("pause", "released");
      const other = await startGuest(world, { plugin, name: "vm2" }, ["--lease", "cluster:db"]);
      const resume = () => manager.call("resume", { changes: "refuse" });
      const held = new RegExp(`^lease cluster:db is locked by guest "vm2" \\(pid ${other.pid}\\b`);
      assert.equal(await refusal(resume, held), "locked");
      await other.kill();
      assert.equal(await refusal(resume, /^lease cluster:db was locked by .*"vm2".* stays paused/), "locked");
      assert.equal(isLeaseHeld(world, "cluster:db"), false, "nothing is held after a refusal");
      assert.equal(recordOf(world, "vm1").state, "paused");
      assert.equal(await manager.call("inquire"), state);
      await manager.call("resume", { changes: "accept" });
      assert.deepEqual(locksOf(world, "vm1"), locks);
      assert.equal(recordOf(world, "vm1").state, "running");
    }));

  Deno.test(`${name}: what a pause has given up is not had already`, () =>
    withRunningGuest(candidate, () => LEASES, async ({ world, manager }) => {
      await manager.call("pause", "released");
      const acquire = () => manager.call("acquireResource", "lease", "cluster:db", "exclusive");
      assert.equal(await refusal(acquire, /lease cluster:db .* is not locked any more: .* resume/), "data");
      assert.equal(isLeaseHeld(world, "cluster:db"), false);
      await manager.call("resume", { changes: "refuse" });
      await acquire();
      assert.equal(isLeaseHeld(world, "cluster:db"), true);
    }));

  Deno.test(`${name}: an older state than the record's counts`, () =>
    withRunningGuest(candidate, () => ["--lease", "cluster:db"], async ({ manager }) => {
      const state = await manager.call("pause", "released");
      const [key] = parseLockState(state);
      const older = formatLockState([{ ...key!, generation: key!.generation - 1 }]);
      const resume = () => manager.call("resume", { changes: "refuse", state: older });
      assert.equal(await refusal(resume, /^lease cluster:db was locked by /), "locked");
      await manager.call("resume", { changes: "refuse", state });
    }));
}

/** A state without the guest's own lock file, which every call on the guest touches. */
function withoutLock(state: unknown): unknown {
  const { locks, files } = state as { locks: unknown; files: string[] };
  return { locks, files: files.filter((file) => !/\/guests\/[0-9a-f-]{36}\.lock |\/guests \d/.test(file)) };
}
