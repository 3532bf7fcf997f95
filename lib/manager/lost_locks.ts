import type { CarrierClaim, Known, LockEvidence } from "../driver/contract.ts";
import {
  type GuestRecord,
  type GuestState,
  type RecordedResource,
  stateOfMigration,
} from "./guest_record.ts";

/** What a record says that the guest's carriers hold, as drivers are asked for evidence. */
export function claimsOf({ carriers, grants }: Pick<GuestRecord, "carriers" | "grants">): CarrierClaim[] {
  const modes = new Map(grants?.map(({ key, mode }) => [key, mode]));
  return carriers.map(({ pid, kind, locks }) => ({
    pid,
    kind,
    locks: locks.map(({ key, slots }) => ({ key, slots, mode: modes.get(key) })),
  }));
}

/**
 * The resources of a record that the kernel does not show as held by the guest. A key that no carrier of the record
 * has is not held either: its holder may have ended with a process that the guest forked away from.
 */
export function unlockedResources(
  resources: readonly RecordedResource[],
  evidence: readonly LockEvidence[],
): RecordedResource[] {
  return resources.filter(({ leaving, keys }) => !leaving && unheldKeys(keys, evidence).length > 0);
}

/** The keys that the kernel does not show as held: each slot by one carrier or another. */
export function unheldKeys(keys: readonly string[], evidence: readonly LockEvidence[]): string[] {
  const held = heldByKey(evidence);
  // What is not known is not lost.
  return keys.filter((key) => !held.has(key) || held.get(key) === false);
}

/** Whether each key is held, with each slot by one carrier or another: a guest may have a key in several. */
export function heldByKey(evidence: readonly LockEvidence[]): Map<string, Known> {
  const held = new Map<string, Map<string, Known>>();
  for (const each of evidence) {
    const slots = held.get(each.key) ?? new Map<string, Known>();
    held.set(each.key, slots);
    for (const [slot, shown] of Object.entries(each.slots ?? { both: each.held })) {
      if (slots.get(slot) !== true) slots.set(slot, shown);
    }
  }
  return new Map([...held].map(([key, slots]) => [key, allOf([...slots.values()])]));
}

/** All held is held, one missing is missing, as is nothing at all; otherwise it is not known. */
function allOf(slots: readonly Known[]): Known {
  if (slots.length === 0 || slots.includes(false)) return false;
  return slots.includes(null) ? null : true;
}

/** What a guest has lost: the lease on itself counts, and what a pause gave up does not. */
export function lostResources(record: GuestRecord, evidence: readonly LockEvidence[]): RecordedResource[] {
  const givenUp = new Set(record.givenUp.map(({ key }) => key));
  return [...ownLease(record), ...record.resources].filter(({ leaving, keys }) =>
    !leaving && unheldKeys(keys.filter((key) => !givenUp.has(key)), evidence).length > 0
  );
}

/** The lease of a guest on itself as a resource. */
export function ownLease({ uuid, leaseKeys }: GuestRecord): RecordedResource[] {
  if (leaseKeys.length === 0) return [];
  return [{ type: "lease", name: `guest:${uuid}`, access: "exclusive", keys: leaseKeys }];
}

/**
 * A guest's state by what the kernel shows of its locks. A paused guest stays paused: it does not run without them. One
 * that was halted for want of them is paused once it has them again, until somebody resumes it.
 */
export function stateByLocks(
  { state, halted, migration }: Pick<GuestRecord, "state" | "halted" | "migration">,
  locks: "held" | "lost",
): GuestState {
  if (state === "paused") return state;
  if (locks === "lost") return "lock-lost";
  if (state !== "lock-lost") return state;
  if (migration !== undefined) return stateOfMigration(migration);
  return halted === undefined ? "running" : "paused";
}
