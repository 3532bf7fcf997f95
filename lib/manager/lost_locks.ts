import type { LockMode } from "../access.ts";
import type { CarrierClaim, Known, LockEvidence } from "../driver/contract.ts";
import {
  type GuestRecord,
  type GuestState,
  type RecordedResource,
  stateOfMigration,
} from "./guest_record.ts";

/** What a record says that the guest's carriers hold, as drivers are asked for evidence. */
export function claimsOf(record: Pick<GuestRecord, "carriers" | "grants" | "resources">): CarrierClaim[] {
  const modes = modesOf(record);
  return record.carriers.map(({ pid, kind, locks }) => ({
    pid,
    kind,
    locks: locks.map(({ key, slots }) => ({ key, slots, mode: modes.get(key) })),
  }));
}

/** In which mode each key is held, as far as that is known: while its access changes, a key is in one or the other. */
export function modesOf(
  { grants, resources }: Pick<GuestRecord, "grants" | "resources">,
): Map<string, LockMode> {
  const modes = new Map(grants?.map(({ key, mode }) => [key, mode]));
  for (const key of changingKeys(resources)) modes.delete(key);
  return modes;
}

/** The keys of what changes its access: one slot of theirs at a time may be free for an instant. */
export function changingKeys(resources: readonly RecordedResource[]): Set<string> {
  return new Set(resources.flatMap(({ changing, keys }) => changing === undefined ? [] : keys));
}

/**
 * The resources of a record that the kernel does not show as held by the guest. A key that no carrier of the record
 * has is not held either: its holder may have ended with a process that the guest forked away from.
 */
export function unlockedResources(
  resources: readonly RecordedResource[],
  evidence: readonly LockEvidence[],
): RecordedResource[] {
  const changing = changingKeys(resources);
  return resources.filter(({ leaving, keys }) => !leaving && unheldKeys(keys, evidence, changing).length > 0);
}

/** The keys that the kernel does not show as held: each slot by one carrier or another. */
export function unheldKeys(
  keys: readonly string[],
  evidence: readonly LockEvidence[],
  changing: ReadonlySet<string> = new Set(),
): string[] {
  const held = heldByKey(evidence, changing);
  // What is not known is not lost.
  return keys.filter((key) => !held.has(key) || held.get(key) === false);
}

/**
 * Whether each key is held, with each slot by one carrier or another: a guest may have a key in several. Of a key that
 * is `changing` one slot will do.
 */
export function heldByKey(
  evidence: readonly LockEvidence[],
  changing: ReadonlySet<string> = new Set(),
): Map<string, Known> {
  const held = new Map<string, Map<string, Known>>();
  for (const each of evidence) {
    const slots = held.get(each.key) ?? new Map<string, Known>();
    held.set(each.key, slots);
    for (const [slot, shown] of Object.entries(each.slots ?? { both: each.held })) {
      if (slots.get(slot) !== true) slots.set(slot, shown);
    }
  }
  return new Map([...held].map(([key, slots]) => {
    const seen = [...slots.values()];
    return [key, changing.has(key) ? oneOf(seen) : allOf(seen)];
  }));
}

/** One held will do; otherwise it is not known unless all are known to be missing. */
function oneOf(slots: readonly Known[]): Known {
  if (slots.includes(true)) return true;
  return slots.includes(null) ? null : false;
}

/** All held is held, one missing is missing, as is nothing at all; otherwise it is not known. */
function allOf(slots: readonly Known[]): Known {
  if (slots.length === 0 || slots.includes(false)) return false;
  return slots.includes(null) ? null : true;
}

/** What a guest has lost: the lease on itself counts, and what a pause gave up does not. */
export function lostResources(record: GuestRecord, evidence: readonly LockEvidence[]): RecordedResource[] {
  const givenUp = new Set(record.givenUp.map(({ key }) => key));
  const changing = changingKeys(record.resources);
  return [...ownLease(record), ...record.resources].filter(({ leaving, keys }) =>
    !leaving && unheldKeys(keys.filter((key) => !givenUp.has(key)), evidence, changing).length > 0
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
