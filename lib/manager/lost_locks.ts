import type { CarrierClaim, LockEvidence } from "../driver/contract.ts";
import type { GuestRecord, GuestState, RecordedResource } from "./guest_record.ts";

/** What a record says that the guest's carriers hold, as drivers are asked for evidence. */
export function claimsOf({ carriers }: GuestRecord): CarrierClaim[] {
  return carriers.map(({ pid, kind, locks }) => ({ pid, kind, locks }));
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
  const held = new Map<string, Map<string, LockEvidence["held"]>>();
  for (const each of evidence) {
    const slots = held.get(each.key) ?? new Map<string, LockEvidence["held"]>();
    held.set(each.key, slots);
    for (const [slot, shown] of Object.entries(each.slots ?? { both: each.held })) {
      if (slots.get(slot) !== true) slots.set(slot, shown);
    }
  }
  return keys.filter((key) => {
    const slots = held.get(key);
    return slots === undefined || slots.size === 0 || [...slots.values()].includes(false);
  });
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

/** A guest's state by what the kernel shows of its locks. A paused guest stays paused: it does not run without them. */
export function stateByLocks(state: GuestState, locks: "held" | "lost"): GuestState {
  if (state === "paused") return state;
  if (locks === "lost") return "lock-lost";
  return state === "lock-lost" ? "running" : state;
}
