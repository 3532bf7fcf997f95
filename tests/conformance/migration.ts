import assert from "node:assert/strict";
import type { ArrivalOutcome } from "../../lib/manager/migrate_in.ts";
import { refusal } from "../support/refusal.ts";
import { until } from "../support/until.ts";
import type { Candidate } from "./candidate.ts";
import { lockedFiles } from "./kernel_view.ts";
import { arrival, attachToIncoming, comeIn, type Journey, newTicket, withJourney } from "./moving_guest.ts";
import { attachTo, locksOf, recordOf, startGuest } from "./running_guest.ts";

/** The files that a process has locked, by their last letter. */
function halves({ here }: Journey, pid: number): string {
  return [...new Set(lockedFiles(here, pid).map((file) => file.slice(-1)))].sort().join("");
}

/** Nobody else gets the guest now, on either host. */
async function assertKeptOut({ here, there, plugin }: Journey): Promise<void> {
  for (const world of [here, there]) {
    const args = ["run", "--plugin", plugin, "--name", "vm1", "--", "true"];
    const { code, stderr } = await world.run(args);
    assert.equal(code, 75, stderr);
    assert.match(stderr, /vm1/);
  }
}

/** The calls of a migration, on both sides of it. */
export function testMigration(candidate: Candidate): void {
  const { name } = candidate.definition;

  Deno.test(`${name}: a guest moves, the destination being completed first: it waits, and nobody gets between`, () =>
    withJourney(candidate, async (journey) => {
      const { here, there, guest, manager } = journey;
      assert.equal(halves(journey, guest.pid), "ab");
      const coming = await comeIn(journey);
      assert.deepEqual([halves(journey, guest.pid), halves(journey, coming.pid)], ["a", "b"]);
      assert.deepEqual([recordOf(here, "vm1").state, recordOf(there, "vm1").state], [
        "migrating-out",
        "incoming",
      ]);
      await assertKeptOut(journey);
      const incoming = await attachToIncoming(journey);
      assert.equal(await incoming.call("child"), coming.pid);
      const early = await incoming.call("completeMigrateIn", { cancel: false }) as ArrivalOutcome;
      assert.equal(early.outcome, "waiting");
      assert.equal(recordOf(there, "vm1").state, "running");
      assert.equal(
        await refusal(() => manager.call("completeMigrateOut", { cancel: false }), /still runs|lives/),
        "locked",
      );
      await guest.kill();
      await assertKeptOut(journey);
      await manager.call("completeMigrateOut", { cancel: false });
      const done = await incoming.call("completeMigrateIn", { cancel: false }) as ArrivalOutcome;
      assert.equal(done.outcome, "complete");
      assert.equal(halves(journey, coming.pid), "ab");
      const { state, migration } = recordOf(there, "vm1");
      assert.deepEqual([state, migration], ["running", undefined]);
      await assertKeptOut(journey);
      const attached = await attachTo(journey.destination, "vm1");
      assert.equal(await attached.call("child"), coming.pid, "a guest like any other");
      await coming.kill();
      await attached.call("shutdown");
      await startGuest(here, { plugin: journey.plugin, name: "vm1" });
    }));

  Deno.test(`${name}: a migration that is cancelled leaves the guest with all its locks, and may be tried again`, () =>
    withJourney(candidate, async (journey) => {
      const { here, there, guest, manager } = journey;
      const locks = locksOf(here, "vm1");
      const coming = await comeIn(journey);
      const early = refusal(
        () => manager.call("completeMigrateOut", { cancel: true }),
        /cancel the migration there first/,
      );
      assert.equal(await early, "locked");
      assert.equal(halves(journey, guest.pid), "a", "it stays as it was");
      await (await attachToIncoming(journey)).call("completeMigrateIn", { cancel: true });
      await until("what waited for it has ended", () => isGone(coming.pid));
      assert.equal(await refusal(() => attachToIncoming(journey), /no guest "vm1"/), "data");
      await manager.call("completeMigrateOut", { cancel: true });
      assert.deepEqual(locksOf(here, "vm1"), locks);
      const { state, migration } = recordOf(here, "vm1");
      assert.deepEqual([state, migration], ["running", undefined]);
      await assertKeptOut(journey);
      await manager.call("completeMigrateOut", { cancel: true }); // again: there is nothing to be done
      await comeIn(journey);
      assert.equal(recordOf(there, "vm1").state, "incoming");
    }));

  Deno.test(`${name}: a ticket is good once, until there is a later one, and for its guest`, () =>
    withJourney(candidate, async (journey) => {
      const first = await newTicket(journey);
      const second = await newTicket(journey);
      const late = await arrival(journey, first);
      assert.equal(await refusal(() => late.call("acquireObject"), /this is not the ticket/), "permission");
      assert.equal(recordOf(journey.here, "vm1").migration?.role, "out");
      const wrong = await journey.destination.newManager("migrate");
      await wrong.call("setParameter", "name", "vm2");
      assert.equal(await refusal(() => wrong.call("acquireObject"), /by which ticket\?/), "usage");
      await wrong.call("setParameter", "ticket", second);
      assert.equal(await refusal(() => wrong.call("acquireObject"), /the ticket is for guest "vm1"/), "data");
      const manager = await arrival(journey, second);
      await manager.call("acquireObject");
      assert.equal(await manager.call("child"), journey.destination.pid);
      assert.equal(halves(journey, journey.destination.pid), "b");
      assert.equal(
        await refusal(() => newTicket(journey), /has come in at the destination already/),
        "locked",
      );
      await manager.call("completeMigrateIn", { cancel: true });
      assert.equal(halves(journey, journey.destination.pid), "");
      const again = await arrival(journey, second);
      assert.equal(await refusal(() => again.call("acquireObject"), /was used already/), "data");
    }));

  Deno.test(`${name}: a ticket of a migration that was cancelled, or that has expired, is good for nothing`, () =>
    withJourney(candidate, async (journey) => {
      const ticket = await newTicket(journey);
      await journey.manager.call("completeMigrateOut", { cancel: true });
      const cancelled = await arrival(journey, ticket);
      assert.equal(await refusal(() => cancelled.call("acquireObject"), /is stale/), "data");
      const brief = await journey.manager.call("prepareMigrate", "ssh://elsewhere", { lifetimeMs: 1 });
      await until("it has expired", () => Date.now() > Date.parse(brief.expires));
      const expired = await arrival(journey, brief);
      assert.equal(await refusal(() => expired.call("acquireObject"), /has expired/), "data");
    }));
}

function isGone(pid: number): boolean {
  try {
    return / Z /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return true;
  }
}
