import type { GivenUpKey, RunningGuest, TakeBackOutcome } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { type Grantee, noteOf } from "../lockspace/grant.ts";
import { writeNotes } from "../lockspace/holder_note.ts";
import { blockersOf, holdersOfKey } from "../lockspace/key_holders.ts";
import { keyState } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { observeKey } from "../lockspace/slot_evidence.ts";
import { kernelFlocks } from "../process/descriptors.ts";
import { countAgain } from "./count_again.ts";
import { judgeGeneration, lastHolder } from "./generation_check.ts";
import { giveUpKeys, retakeKeys } from "./pause.ts";

/** Who takes back, for the notes. */
export type ReturningGuest = Omit<Grantee, "resources"> & { running: RunningGuest };

/**
 * Takes the keys of a paused guest back. Their generations are compared only when all locks are held: from then on
 * nobody can change them. If one has grown, somebody else has had the disk, and all are given up again.
 */
export function takeBackKeys(
  lockspace: Lockspace,
  { running, ...grantee }: ReturningGuest,
  givenUp: readonly GivenUpKey[],
  changes: "refuse" | "accept",
): TakeBackOutcome {
  const result = retakeKeys(lockspace, running.carriers, givenUp);
  if (result.outcome === "refused") {
    const { mode } = givenUp.find(({ key }) => key === result.key)!;
    const evidence = observeKey(lockspace, result.key, kernelFlocks());
    const { holders } = holdersOfKey(lockspace, result.key, evidence, grantee.host);
    return { outcome: "refused", key: result.key, holders: blockersOf(holders, mode) };
  }
  if (result.outcome === "lost") return result;
  failpoint("resume.taken");
  const keys = givenUp.map(({ key }) => key);
  try {
    const judged = givenUp.map((remembered) => {
      const state = keyState(lockspace, remembered.key);
      return { remembered, state, verdict: judgeGeneration(remembered, state, grantee.process) };
    });
    // A lower one than remembered proves nothing either: the file was put back from somewhere.
    const changed = judged.find(({ verdict }) => verdict === "changed");
    if (changed !== undefined && changes === "refuse") {
      const { remembered: { key }, state } = changed;
      const had = lastHolder(lockspace, key, { state, self: grantee.guest.uuid });
      failpoint("resume.refusing");
      giveUpKeys(lockspace, running.carriers, keys);
      return { outcome: "changed", key, generation: state?.generation ?? 0, had };
    }
    const grants = countAgain(lockspace, grantee, judged);
    failpoint("resume.counted");
    writeNotes(lockspace, keys, noteOf({ ...grantee, resources: running.resources }, grants));
    failpoint("resume.noted");
    return { outcome: "taken", grants };
  } catch (error) {
    giveUpKeys(lockspace, running.carriers, keys);
    throw error instanceof LockvisorError ? error : new LockvisorError("io", String(error), { cause: error });
  }
}
