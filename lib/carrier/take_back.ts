import type { GivenUpKey, Holder, RunningGuest, TakeBackOutcome } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { countGrants, type Grantee, noteOf } from "../lockspace/grant.ts";
import { readNotes, writeNotes } from "../lockspace/holder_note.ts";
import { blockersOf, holderOfNote, holdersOfKey, patience } from "../lockspace/key_holders.ts";
import { keyState } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { observeKey } from "../lockspace/slot_evidence.ts";
import { kernelFlocks } from "../process/descriptors.ts";
import { giveUpKeys, retakeKeys } from "./pause.ts";

/** Who takes back, for the notes. */
export type ReturningGuest = Omit<Grantee, "resources"> & { running: RunningGuest };

/**
 * Takes the keys of a paused guest back. Their generations are compared only when all locks are held: from then on
 * nobody can change them. If one has grown, somebody else has had the disk, and all are given up again.
 */
export async function takeBackKeys(
  lockspace: Lockspace,
  { running, ...grantee }: ReturningGuest,
  givenUp: readonly GivenUpKey[],
  changes: "refuse" | "accept",
): Promise<TakeBackOutcome> {
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
  if (result.outcome === "lost") return result;
  const keys = givenUp.map(({ key }) => key);
  try {
    const states = givenUp.map(({ key }) => keyState(lockspace, key));
    const changed = givenUp.findIndex(({ generation }, index) =>
      (states[index]?.generation ?? 0) > generation
    );
    if (changed >= 0 && changes === "refuse") {
      const { key } = givenUp[changed]!;
      const had = lastHolder(lockspace, key);
      giveUpKeys(lockspace, running.carriers, keys);
      return { outcome: "changed", key, generation: states[changed]!.generation, had };
    }
    const plan = givenUp.flatMap(({ key, mode }, index) => {
      const identity = states[index]?.identity;
      return identity === undefined ? [] : [{ key, mode, identity }];
    });
    countGrants(lockspace, plan);
    writeNotes(lockspace, keys, noteOf({ ...grantee, resources: running.resources }));
    return { outcome: "taken" };
  } catch (error) {
    giveUpKeys(lockspace, running.carriers, keys);
    throw error instanceof LockvisorError ? error : new LockvisorError("io", String(error), { cause: error });
  }
}

/** The guest whose note about a key is the newest, dead or alive. */
function lastHolder(lockspace: Lockspace, key: string): Holder | null {
  const notes = readNotes(lockspace, key).flatMap((file) => file.kind === "note" ? [file.note] : []);
  const newest = notes.sort((one, other) => one.since < other.since ? 1 : -1)[0];
  return newest === undefined ? null : holderOfNote(newest, key, "unknown");
}
