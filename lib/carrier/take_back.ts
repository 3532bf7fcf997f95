import type { GivenUpKey, RegainOutcome, RunningGuest, TakeBackOutcome } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { type Grantee, noteOf } from "../lockspace/grant.ts";
import { writeNotes } from "../lockspace/holder_note.ts";
import { blockersOf, holdersOfKey, patience } from "../lockspace/key_holders.ts";
import { keyState } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { observeKey } from "../lockspace/slot_evidence.ts";
import { kernelFlocks } from "../process/descriptors.ts";
import { countAgain } from "./count_again.ts";
import { judgeGeneration, lastHolder } from "./generation_check.ts";
import { giveUpKeys, retakeKeys } from "./pause.ts";
import { type Carry, regainKeys } from "./regain.ts";

/** Who takes back, for the notes. */
export type ReturningGuest = Grantee & { running: RunningGuest };

/**
 * Takes the keys of a paused guest back: in the descriptors in which it had them, or, where its carriers are not known
 * any more, in whichever descriptors can be had, as lost locks are taken again.
 */
export async function takeBackKeys(
  lockspace: Lockspace,
  guest: ReturningGuest,
  { givenUp, changes, carry }: {
    givenUp: readonly GivenUpKey[];
    changes: "refuse" | "accept";
    carry: Carry;
  },
): Promise<TakeBackOutcome> {
  const result = await takeBackInside(lockspace, guest, givenUp, changes);
  if (result.outcome !== "uncarried") return result;
  const lost = [...givenUp].sort((one, other) => one.key < other.key ? -1 : 1);
  return takenBack(await regainKeys(lockspace, { ...guest, lost }, { carry, changes }));
}

function takenBack(result: RegainOutcome): TakeBackOutcome {
  switch (result.outcome) {
    case "regained":
      return { outcome: "taken", grants: result.grants, carriers: result.carriers };
    case "changed":
      return result;
    case "refused":
      return result;
    case "unknown":
      return { outcome: "lost", key: result.key };
  }
}

/**
 * Takes the keys of a paused guest back. Their generations are compared only when all locks are held: from then on
 * nobody can change them. If one has grown, somebody else has had the disk, and all are given up again.
 */
async function takeBackInside(
  lockspace: Lockspace,
  { running, ...grantee }: ReturningGuest,
  givenUp: readonly GivenUpKey[],
  changes: "refuse" | "accept",
): Promise<TakeBackOutcome | { outcome: "uncarried"; key: string }> {
  const judge = patience();
  let result = retakeKeys(lockspace, running.carriers, givenUp);
  while (result.outcome === "refused") {
    const { key } = result;
    const { mode } = givenUp.find((each) => each.key === key)!;
    const evidence = observeKey(lockspace, key, kernelFlocks());
    const holders = blockersOf(holdersOfKey(lockspace, key, evidence, grantee.host).holders, mode);
    if (await judge(holders) === "final") return { outcome: "refused", key, holders };
    result = retakeKeys(lockspace, running.carriers, givenUp);
  }
  if (result.outcome !== "taken") return result;
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
      giveUpKeys(lockspace, running, keys);
      return { outcome: "changed", key, generation: state?.generation ?? 0, had };
    }
    const grants = countAgain(lockspace, grantee, judged);
    failpoint("resume.counted");
    writeNotes(lockspace, keys, noteOf(grantee, grants));
    failpoint("resume.noted");
    return { outcome: "taken", grants };
  } catch (error) {
    giveUpKeys(lockspace, running, keys);
    throw error instanceof LockvisorError ? error : new LockvisorError("io", String(error), { cause: error });
  }
}
