import { failpoint } from "../failpoint.ts";
import type { Carrier, GivenUpKey, GrantedKey, RunningGuest } from "../driver/contract.ts";
import { keyState } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { type CarriedSlot, carriedSlots, modeHeld, requireReachOf } from "./carried_slots.ts";
import { steerFlock } from "./steer.ts";

/**
 * Gives keys up in the processes that hold them, and tells what it takes to have them back. Their descriptors stay
 * open there.
 * @param remember told before the first lock goes
 * @throws {LockvisorError} `permission` when one of the processes cannot be reached; nothing was told or given up then
 */
export function giveUpKeys(
  lockspace: Lockspace,
  { carriers, grants }: Pick<RunningGuest, "carriers" | "grants">,
  keys: readonly string[],
  remember: (givenUp: GivenUpKey[]) => void = () => {},
): GivenUpKey[] {
  const slots = carriedSlots(lockspace, carriers, new Set(keys));
  requireReachOf(slots); // before the look at how they are held: what is hidden would pass for not held
  const givenUp = statesOf(lockspace, slots, grants);
  remember(givenUp);
  failpoint("pause.remembered");
  for (const { carrier, file } of slots.reverse()) {
    steerFlock(carrier, file, "released");
    failpoint("pause.slot-released");
  }
  return givenUp;
}

/**
 * Makes sure that keys could be given up in the processes that hold them, before the guest is stopped for that.
 * @throws {LockvisorError} `permission` when one of the processes cannot be reached
 */
export function requireReachOfKeys(
  lockspace: Lockspace,
  { carriers }: Pick<RunningGuest, "carriers">,
  keys: readonly string[],
): void {
  requireReachOf(carriedSlots(lockspace, carriers, new Set(keys)));
}

/** How keys are held in the processes that hold them, and their generations. */
export function keysHeld(
  lockspace: Lockspace,
  { carriers, grants }: Pick<RunningGuest, "carriers" | "grants">,
  keys: readonly string[],
): GivenUpKey[] {
  return statesOf(lockspace, carriedSlots(lockspace, carriers, new Set(keys)), grants);
}

/**
 * Mode and generation are those of the grant: a lock that was lost unnoticed may be held otherwise by now, or have been
 * somebody else's since, and what is there at present would hide that. Where neither the kernel nor the grant tells the mode, the stronger one is the safe
 * answer.
 */
function statesOf(
  lockspace: Lockspace,
  slots: readonly CarriedSlot[],
  grants: readonly GrantedKey[],
): GivenUpKey[] {
  const granted = new Map(grants.map((grant) => [grant.key, grant]));
  return [...new Set(slots.map(({ key }) => key))].map((key) => ({
    key,
    mode: granted.get(key)?.mode ?? modeHeld(slots.find((slot) => slot.key === key)!) ?? "exclusive",
    generation: granted.get(key)?.generation ?? keyState(lockspace, key)?.generation ?? 0,
  }));
}

/** What asking for given-up keys gave: all are held again, or none and the first that could not be. */
export type RetakeOutcome =
  | { outcome: "taken" }
  | { outcome: "refused"; key: string }
  /** No carrier is said to have it: the guest's record was lost, and made again. */
  | { outcome: "uncarried"; key: string }
  /** The lock file was exchanged, or the guest has it open no more. */
  | { outcome: "lost"; key: string };

/**
 * Takes given-up keys again, in the very descriptors in which they were held. All or nothing.
 * @throws {LockvisorError} `permission` when one of the processes cannot be reached; nothing was taken then
 */
export function retakeKeys(
  lockspace: Lockspace,
  carriers: readonly Carrier[],
  givenUp: readonly GivenUpKey[],
): RetakeOutcome {
  const modes = new Map(givenUp.map(({ key, mode }) => [key, mode]));
  const slots = carriedSlots(lockspace, carriers, new Set(modes.keys()));
  const missing = givenUp.find(({ key }) => !slots.some((slot) => slot.key === key));
  if (missing !== undefined) return { outcome: "uncarried", key: missing.key };
  requireReachOf(slots);
  const taken: CarriedSlot[] = [];
  for (const slot of slots) {
    const result = steerFlock(slot.carrier, slot.file, modes.get(slot.key)!);
    if (result === "done") {
      taken.push(slot);
      failpoint("resume.slot-taken");
      continue;
    }
    for (const { carrier, file } of taken.reverse()) steerFlock(carrier, file, "released");
    return { outcome: result === "refused" ? "refused" : "lost", key: slot.key };
  }
  return { outcome: "taken" };
}
