import type { CarriedLock, Carrier, Holding, Known, NotedGuest } from "../driver/contract.ts";
import type { Slot } from "../lockspace/slot.ts";
import { isSameProcess, type Life, type ProcessIdentity } from "../process/process_identity.ts";
import { type GuestRecord, stateOfMigration } from "./guest_record.ts";
import { keysIn, slotsOf, wholeKeys } from "./held_locks.ts";
import { verdictOnRecord } from "./guest_view.ts";

/** Where a guest lives: in the process that its record names, in one that inherited its descriptors, or nowhere. */
export type Whereabouts =
  | { kind: "same" }
  | { kind: "forked"; heir: Holding }
  | { kind: "gone" }
  /** Its process has ended, and somebody who cannot be seen from here has its lease, or it cannot be known. */
  | { kind: "hidden" }
  /** Another pid namespace, or a /proc that hides it: it cannot be known from here. */
  | { kind: "unseen" };

/**
 * Where a guest is, by the kernel's word. A guest that forked into the background (`-daemonize`) has ended as a
 * process, and the lease on itself lives on in its child; of several the oldest is meant.
 * @param view.leaseHeld asked after the process was found dead: the holdings may be older than a fork
 */
export function whereabouts(
  life: Life,
  leaseKeys: readonly string[],
  { holdings, leaseHeld, lifeOf }: {
    holdings: readonly Holding[];
    leaseHeld: () => Known;
    lifeOf: (process: ProcessIdentity) => Life;
  },
): Whereabouts {
  if (life === "alive") return { kind: "same" };
  if (life === "unknown") return { kind: "unseen" };
  const heirs = holdings.filter(({ process, kind, locks }) =>
    kind === "other" && locks.some(({ key }) => leaseKeys.includes(key)) && lifeOf(process) === "alive"
  );
  const heir = heirs.reduce<Holding | undefined>(
    (oldest, each) => oldest === undefined || isOlder(each.process, oldest.process) ? each : oldest,
    undefined,
  );
  if (heir !== undefined) return { kind: "forked", heir };
  return verdictOnRecord(life, leaseHeld()) === "drop" ? { kind: "gone" } : { kind: "hidden" };
}

/** The processes that may be a guest that comes in and forked: they have the slot that it came in by, and not the other. */
export function incomingHeirs(holdings: readonly Holding[], leaseKeys: readonly string[]): Holding[] {
  return holdings.filter(({ locks }) =>
    locks.some(({ key, slots }) => leaseKeys.includes(key) && "b" in slots && !("a" in slots))
  );
}

function isOlder(one: ProcessIdentity, other: ProcessIdentity): boolean {
  const [a, b] = [BigInt(one.startTime), BigInt(other.startTime)];
  return a === b ? one.pid < other.pid : a < b;
}

/** The record of a guest that lives on in a process that inherited its descriptors. */
export function followFork(
  record: GuestRecord,
  heir: Holding,
  lifeOf: (carrier: Carrier) => Life,
): GuestRecord {
  const known = new Set(record.carriers.filter(({ kind }) => kind !== "holder").flatMap(keysIn));
  const own: Carrier = {
    ...heir.process,
    kind: "guest",
    locks: heir.locks.filter(({ key }) => known.has(key)),
  };
  const holders = record.carriers.filter((each) => each.kind === "holder" && lifeOf(each) === "alive");
  return { ...record, carriers: [own, ...holders] };
}

/**
 * The record of a guest whose record was lost, from its notes and from what the kernel shows. Its locks are those
 * noted keys that its process holds, or a holder beside it.
 */
export function recordFromNotes(
  noted: NotedGuest,
  process: ProcessIdentity,
  { holdings, hostId, plugin, command }: {
    holdings: readonly Holding[];
    hostId: string;
    plugin: string;
    command: string[];
  },
): GuestRecord {
  const keys = new Set([...noted.leaseKeys, ...noted.resources.flatMap((resource) => resource.keys)]);
  const own = holdings.find(({ process: { pid } }) => pid === process.pid);
  const side = sideOfMigration(noted, own);
  const only = (locks: readonly CarriedLock[]) =>
    locks.filter(({ key }) => keys.has(key)).flatMap((lock) =>
      side === undefined ? [lock] : halfOf(lock, side)
    );
  const holders = holdings.filter((each) => isHolderOf(process.pid, each) && only(each.locks).length > 0);
  const carriers: Carrier[] = holders.map((holder) => ({
    ...holder.process,
    kind: "holder",
    locks: only(holder.locks),
  }));
  // What it holds it has not given up, whatever is written: it may run.
  const held = wholeKeys(slotsOf([...own === undefined ? [] : [own], ...holders]));
  const givenUp = (noted.givenUp ?? []).filter(({ key }) => !held.has(key));
  return {
    ...noted.guest,
    plugin,
    state: noted.migration !== undefined
      ? stateOfMigration(noted.migration)
      : givenUp.length > 0
      ? "paused"
      : "running",
    since: noted.since,
    hostId,
    carriers: [{ ...process, kind: "guest", locks: only(own?.locks ?? []) }, ...carriers],
    leaseKeys: [...noted.leaseKeys],
    resources: noted.resources.map(({ type, name, access, keys }) => ({ type, name, access, keys })),
    grants: noted.grants ?? [],
    givenUp,
    ...(noted.migration === undefined ? {} : { migration: noted.migration }),
    command,
  };
}

/**
 * The only slot that a guest on its way is to be believed to hold; undefined where it is believed what is seen. What leaves
 * claims none that it may have offered; of what comes in, where nothing but open files is seen, one slot is open and no more.
 */
function sideOfMigration({ migration }: NotedGuest, own: Holding | undefined): Slot | undefined {
  if (migration?.role === "out") return "a";
  return migration?.role === "in" && own?.proof === "open" ? "b" : undefined;
}

function halfOf({ key, slots }: CarriedLock, slot: Slot): CarriedLock[] {
  const descriptor = slots[slot];
  return descriptor === undefined ? [] : [{ key, slots: { [slot]: descriptor } }];
}

/** Whether a process is a holder beside a guest's process, and not beside another guest that shares a disk with it. */
export function isHolderOf(guestPid: number, holding: Holding): boolean {
  return holding.kind === "holder" && holding.guestPid === guestPid;
}

/**
 * Locks that the kernel shows and that no record speaks of. What a record of a guest on its way speaks of is known of that
 * guest's processes alone: the other side may be a process of this host too, with the other slots of the same keys.
 */
export function unrecordedLocks(holdings: readonly Holding[], records: readonly GuestRecord[]): Holding[] {
  const resting = records.filter(({ migration }) => migration === undefined);
  const known = new Set(resting.flatMap(({ carriers }) => carriers.flatMap(keysIn)));
  const moving = records.filter(({ migration }) => migration !== undefined);
  const carried = new Set(
    moving.flatMap(({ carriers }) =>
      carriers.flatMap((carrier) => keysIn(carrier).map((key) => `${carrier.pid} ${key}`))
    ),
  );
  return holdings.flatMap((holding) => {
    const locks = holding.locks.filter(({ key }) =>
      !known.has(key) && !carried.has(`${holding.process.pid} ${key}`)
    );
    return locks.length === 0 ? [] : [{ ...holding, locks }];
  });
}

/** Whether a record is that of a guest that notes tell of: of the same side of a migration, or of the same process. */
export function isRecordOf(
  { uuid, migration, carriers: [own] }: Pick<GuestRecord, "uuid" | "migration" | "carriers">,
  noted: Pick<NotedGuest, "guest" | "process" | "migration">,
): boolean {
  if (uuid !== noted.guest.uuid) return false;
  return (migration?.role === "in") === (noted.migration?.role === "in") || isSameProcess(own, noted.process);
}
