import type { CarriedLock, Holding, Known } from "../driver/contract.ts";
import type { Slot } from "../lockspace/slot.ts";
import { isSameProcess, type ProcessIdentity } from "../process/process_identity.ts";
import type { GuestRecord } from "./guest_record.ts";
import { modesOf } from "./lost_locks.ts";

/** A descriptor of one of a guest's processes in which a slot is locked. */
export interface LockedSlot {
  key: string;
  slot: Slot;
  descriptor: number;
  process: ProcessIdentity;
  kind: Holding["kind"];
}

/** What one pass over the processes of a host has shown, found by process. */
export class HeldLocks {
  readonly holdings: readonly Holding[];
  readonly #byPid: ReadonlyMap<number, Holding>;
  readonly #holders = new Map<number, Holding[]>();

  constructor(holdings: readonly Holding[]) {
    this.holdings = holdings;
    this.#byPid = new Map(holdings.map((holding) => [holding.process.pid, holding]));
    for (const holding of holdings) {
      if (holding.kind !== "holder" || holding.guestPid === undefined) continue;
      this.#holders.set(holding.guestPid, [...this.#holders.get(holding.guestPid) ?? [], holding]);
    }
  }

  /** What a process holds, if it is that very process. */
  of(process: ProcessIdentity): Holding | undefined {
    const holding = this.#byPid.get(process.pid);
    return holding !== undefined && isSameProcess(holding.process, process) ? holding : undefined;
  }

  /** What a guest's own process holds, and the holders beside it. */
  ofGuest(process: ProcessIdentity): Holding[] {
    const own = this.of(process);
    return [...own === undefined ? [] : [own], ...this.#holders.get(process.pid) ?? []];
  }
}

/** The keys that a guest should hold: with the lease on itself, without what a pause or a release gives up. */
export function wantedKeys({ leaseKeys, resources, givenUp }: GuestRecord): Set<string> {
  const wanted = new Set([
    ...leaseKeys,
    ...resources.flatMap(({ leaving, keys }) => leaving ? [] : keys),
  ]);
  for (const { key } of givenUp) wanted.delete(key);
  return wanted;
}

/** All keys that a record speaks of. */
export function knownKeys({ leaseKeys, resources, givenUp, carriers }: GuestRecord): Set<string> {
  return new Set([
    ...leaseKeys,
    ...resources.flatMap(({ keys }) => keys),
    ...givenUp.map(({ key }) => key),
    ...carriers.flatMap(({ locks }) => locks.map(({ key }) => key)),
  ]);
}

/**
 * Whether a record agrees with what the kernel has shown, so that nothing need be looked at again: the carriers hold
 * each key that the guest should hold, no process of the guest holds another one, and nothing is on its way.
 */
export function isAsRecorded(record: GuestRecord, held: HeldLocks): boolean {
  if (record.pending !== undefined || record.state === "lock-lost") return false;
  const isUnsettled = ({ leaving, unprotected, written, changing }: GuestRecord["resources"][number]) =>
    leaving || unprotected !== undefined || written !== undefined || changing !== undefined;
  if (record.resources.some(isUnsettled)) return false;
  // Where the kernel shows no locks, what is open need not be locked.
  if (held.ofGuest(record.carriers[0]).some(({ proof }) => proof === "open")) return false;
  const wanted = wantedKeys(record);
  const missing = { a: new Set(wanted), b: new Set(wanted) };
  for (const carrier of record.carriers) {
    const holding = held.of(carrier);
    if (holding === undefined) {
      if (carrier.locks.length > 0) return false;
      continue;
    }
    if (otherwiseHeld(record, holding).size > 0) return false;
    const shown = new Map(holding.locks.map(({ key, slots }) => [key, slots]));
    for (const { key, slots } of carrier.locks) {
      const own = shown.get(key);
      if (own === undefined) continue;
      for (const slot of ["a", "b"] as const) {
        if (slots[slot] !== undefined && own[slot] !== undefined) missing[slot].delete(key);
      }
    }
  }
  if (missing.a.size > 0 || missing.b.size > 0) return false;
  return held.ofGuest(record.carriers[0]).every(({ locks }) => locks.every(({ key }) => wanted.has(key)));
}

/** The keys that a process has locked in another mode than the guest was granted them in. */
export function otherwiseHeld(
  record: Pick<GuestRecord, "grants" | "resources">,
  { modes }: Holding,
): Set<string> {
  const wrong = [...modesOf(record)].filter(([key, mode]) => (modes?.get(key) ?? mode) !== mode);
  return new Set(wrong.map(([key]) => key));
}

/** What is known of the locks of a guest whose carriers have all of them open. */
export function provenBy(record: GuestRecord, held: HeldLocks): Known {
  const own = record.carriers.flatMap((carrier) => held.of(carrier) ?? []);
  if (own.length === 0) return false;
  return own.some(({ proof }) => proof === "open") ? null : true;
}

/** Every slot that processes of a guest hold. */
export function slotsOf(holdings: readonly Holding[]): LockedSlot[] {
  return holdings.flatMap(({ process, kind, locks }) =>
    locks.flatMap(({ key, slots }) =>
      (["a", "b"] as const).flatMap((slot): LockedSlot[] => {
        const descriptor = slots[slot];
        return descriptor === undefined ? [] : [{ key, slot, descriptor, process, kind }];
      })
    )
  );
}

/** Keys both of whose slots are among these. */
export function wholeKeys(slots: readonly Pick<LockedSlot, "key" | "slot">[]): Set<string> {
  const found = new Set(slots.map(({ key, slot }) => key + slot));
  return new Set(slots.map(({ key }) => key).filter((key) => found.has(`${key}a`) && found.has(`${key}b`)));
}

/** The keys of locks. */
export function keysIn({ locks }: { locks: readonly CarriedLock[] }): string[] {
  return locks.map(({ key }) => key);
}
