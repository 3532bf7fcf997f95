import assert from "node:assert/strict";
import type { DriverCapabilities } from "../../lib/driver/contract.ts";
import type { Call, RemoteManager } from "../support/manager_process.ts";
import { refusal } from "../support/refusal.ts";
import { ALLOWED, type Phase } from "./allowed.ts";
import type { Candidate } from "./candidate.ts";
import { arrival, attachToIncoming, comeIn, type Journey, newTicket, withJourney } from "./moving_guest.ts";
import { CALLS, outcomeOf } from "./order.ts";

const PHASES: readonly Phase[] = ["open", "acquired", "attached", "shut-down", "freed"];

/** What becomes of a call that is in order: `done`, or the code that it is refused with. */
function inOrder(call: Call, phase: Phase, capabilities: DriverCapabilities): string {
  if (call === "attach") return "data"; // nobody has come in
  if (call === "inquire") return capabilities.pause ? "done" : "unavailable";
  if (call === "shutdown" && phase === "attached") return "locked"; // the guest runs
  return "done";
}

/** Every call in every phase of a manager of mode `migrate`. */
export function testMigrationOrder(candidate: Candidate): void {
  const { name, capabilities } = candidate.definition;

  Deno.test(`${name}: in mode migrate every call is done, or refused by its name and the phase`, () =>
    withJourney(candidate, async (journey) => {
      const seen: string[] = [];
      const wanted: string[] = [];
      for (const phase of PHASES) {
        if (phase === "attached") {
          await journey.manager.call("completeMigrateOut", { cancel: true });
          await comeIn(journey);
        }
        for (
          const [call, make] of Object.entries(CALLS) as [Call, (manager: RemoteManager) => Promise<void>][]
        ) {
          const manager = await managerIn(phase, journey);
          // Half of the locks is the source's: what has come in waits for it.
          const attempt = call === "completeMigrateIn" && phase === "attached"
            ? () => manager.call("completeMigrateIn", { cancel: false })
            : () => make(manager);
          seen.push(`${call} in ${phase}: ${await outcomeOf(attempt)}`);
          const isAllowed = ALLOWED[call]!.migrate?.includes(phase) === true;
          wanted.push(
            `${call} in ${phase}: ${isAllowed ? inOrder(call, phase, capabilities) : "out of order"}`,
          );
          if (phase !== "freed" && call !== "free") await manager.call("free");
          const again = refusal(() => manager.call("free"), /^free: not possible in state "freed"/);
          assert.equal(await again, "usage");
        }
        if (phase === "attached") {
          await (await attachToIncoming(journey)).call("completeMigrateIn", { cancel: true });
        }
      }
      assert.deepEqual(seen, wanted);
    }));
}

async function managerIn(phase: Phase, journey: Journey): Promise<RemoteManager> {
  if (phase === "attached") return await attachToIncoming(journey);
  await journey.manager.call("completeMigrateOut", { cancel: true });
  const manager = await arrival(journey, await newTicket(journey));
  if (phase === "acquired" || phase === "shut-down") await manager.call("acquireObject");
  if (phase === "shut-down") await manager.call("shutdown");
  if (phase === "freed") await manager.call("free");
  return manager;
}
