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
  const held = new Map<string, LockEvidence["held"]>();
  for (const each of evidence) if (held.get(each.key) !== true) held.set(each.key, each.held);
  return resources.filter(({ keys }) => keys.some((key) => !held.has(key) || held.get(key) === false));
}

/** What a guest has lost: the lease on itself counts, and what a pause gave up does not. */
export function lostResources(record: GuestRecord, evidence: readonly LockEvidence[]): RecordedResource[] {
  const givenUp = new Set(record.givenUp.map(({ key }) => key));
  return unlockedResources([...ownLease(record), ...record.resources], evidence)
    .filter(({ keys }) => !keys.every((key) => givenUp.has(key)));
}

function ownLease({ uuid, leaseKeys }: GuestRecord): RecordedResource[] {
  if (leaseKeys.length === 0) return [];
  return [{ type: "lease", name: `guest:${uuid}`, access: "exclusive", keys: leaseKeys }];
}

/** A guest's state by what the kernel shows of its locks. A paused guest stays paused: it does not run without them. */
export function stateByLocks(state: GuestState, locks: "held" | "lost"): GuestState {
  if (state === "paused") return state;
  if (locks === "lost") return "lock-lost";
  return state === "lock-lost" ? "running" : state;
}
