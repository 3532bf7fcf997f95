import type { CarriedLock, Driver, Holding, Known, LockEvidence, NotedGuest } from "../driver/contract.ts";
import { failpoint } from "../failpoint.ts";
import { commandLine, type Life, lifeOf } from "../process/process_identity.ts";
import {
  followFork,
  isHolderOf,
  recordFromNotes,
  unrecordedKeys,
  type Whereabouts,
  whereabouts,
} from "./attach_plan.ts";
import type { GuestRecord, RecordedResource } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { claimsOf, lostResources } from "./lost_locks.ts";

/** A guest as attaching found it. */
export interface AttachedGuest {
  record: GuestRecord;
  /** What was mended, one line each. */
  repairs: string[];
  /** What is to be known about the guest, one line each. */
  warnings: string[];
  /** Resources whose locks the kernel does not show any more. */
  lost: RecordedResource[];
  /** Whether the guest holds its locks; null where the kernel does not show them. */
  locked: Known;
}

/** What attaching works with. */
export interface AttachContext {
  store: GuestStore;
  hostId: string;
  /** The drivers in use, by name; each is asked for its locks once. */
  drivers: ReadonlyMap<string, Driver>;
}

/**
 * Compares every guest of this host with the kernel and mends what its records tell wrong: lost and damaged records
 * are made again from notes, a guest that forked is followed, a hotplug that was cut off is finished, and records of
 * guests that are gone are taken away. Takes and releases no lock.
 */
export async function attachGuests(context: AttachContext): Promise<AttachedGuest[]> {
  const { store, drivers } = context;
  const guests = new Map<string, AttachedGuest>();
  for (const [plugin, driver] of drivers) {
    const holdings = driver.holdings();
    for (const entry of store.list()) {
      if (entry.kind === "damaged" || entry.record.plugin !== plugin) continue;
      const guest = await store.withGuest(
        entry.record.uuid,
        () => Promise.resolve(attachRecorded(store, entry.record.uuid, { driver, holdings })),
      );
      if (guest !== undefined) guests.set(guest.record.uuid, guest);
    }
    const keys = unrecordedKeys(holdings, [...guests.values()].map(({ record }) => record));
    for (const noted of driver.notedGuests(keys)) {
      const { uuid } = noted.guest;
      const known = guests.get(uuid);
      const guest = await store.withGuest(uuid, () =>
        Promise.resolve(
          known === undefined
            ? restoreRecord(context, plugin, { driver, noted, holdings })
            : finishHotplug(store, { driver, known, noted, holdings }),
        ));
      if (guest !== undefined) guests.set(uuid, guest);
    }
  }
  return [...drivers].flatMap(([plugin, driver]) =>
    withEvidence(driver, [...guests.values()].filter(({ record }) => record.plugin === plugin))
  );
}

function found(record: GuestRecord, repairs: string[] = [], warnings: string[] = []): AttachedGuest {
  return { record, repairs, warnings, lost: [], locked: null };
}

function attachRecorded(
  store: GuestStore,
  uuid: string,
  { driver, holdings }: HostLocks,
): AttachedGuest | undefined {
  const entry = store.read(uuid); // again: another lockvisor may have worked on it until now
  if (entry?.kind !== "record") return undefined;
  const { record } = entry;
  const where = find(lifeOf(record.carriers[0]), record.leaseKeys, { driver, holdings });
  switch (where.kind) {
    case "gone":
      failpoint("attach.gone");
      store.remove(record);
      return undefined;
    case "hidden":
      return found(record, [], [
        `its process ${record.carriers[0].pid} has ended, and who has its locks now cannot be seen from here`,
      ]);
    case "unseen":
      return found(record, [], [`its process ${record.carriers[0].pid} is in another pid namespace`]);
    case "forked": {
      const { pid } = where.heir.process;
      failpoint("attach.following");
      const followed = store.update(record, (current) => followFork(current, where.heir, lifeOf));
      failpoint("attach.followed");
      return found(followed, [
        `followed it from process ${record.carriers[0].pid} to ${pid}, which it forked`,
      ]);
    }
    case "same":
      return found(record);
  }
}

/** A driver, and what the kernel showed of its locks at the beginning. */
interface HostLocks {
  driver: Driver;
  holdings: readonly Holding[];
}

function find(life: Life, leaseKeys: readonly string[], { driver, holdings }: HostLocks): Whereabouts {
  return whereabouts(life, leaseKeys, { holdings, leaseHeld: () => driver.isHeld(leaseKeys), lifeOf });
}

interface Unrecorded extends HostLocks {
  noted: NotedGuest;
}

function restoreRecord(
  { store, hostId }: AttachContext,
  plugin: string,
  { driver, noted, holdings }: Unrecorded,
): AttachedGuest | undefined {
  if (store.read(noted.guest.uuid)?.kind === "record") return undefined; // it has started meanwhile
  const where = find(lifeOf(noted.process), noted.leaseKeys, { driver, holdings });
  if (where.kind !== "same" && where.kind !== "forked") return undefined;
  const process = where.kind === "forked" ? where.heir.process : noted.process;
  const command = commandLine(process.pid);
  const record = recordFromNotes(noted, process, { holdings, hostId, plugin, command });
  failpoint("attach.restoring");
  store.claim(record);
  failpoint("attach.restored");
  const warnings = noted.withoutNotes.map(({ type, name }) =>
    `${type} ${name} was given up by it before its record was lost; if it is paused and still has that ${type}, acquire it before it runs on`
  );
  return found(record, ["made its record again from its notes"], warnings);
}

/** A hotplug that was cut off between its locks and its record: the locks stay, and the record learns of them. */
function finishHotplug(
  store: GuestStore,
  { driver, known, noted, holdings }: Unrecorded & { known: AttachedGuest },
): AttachedGuest | undefined {
  const entry = store.read(noted.guest.uuid);
  if (entry?.kind !== "record") return known;
  const { record } = entry;
  const missing = noted.resources.filter(({ type, name }) =>
    !record.resources.some((own) => own.type === type && own.name === name)
  );
  const recorded = new Set(record.carriers.flatMap(({ locks }) => locks.map(({ key }) => key)));
  const keys = new Set(missing.flatMap((resource) => resource.keys).filter((key) => !recorded.has(key)));
  const [{ pid }] = record.carriers;
  const carriers = holdings.flatMap((holding) => {
    const { process, kind, locks } = holding;
    // One slot alone is no lock: the carrying was cut off.
    const wanted = locks.filter(({ key, slots }) => keys.has(key) && "a" in slots && "b" in slots);
    const isOwn = isHolderOf(pid, holding) || process.pid === pid;
    if (wanted.length === 0 || !isOwn || !isHeldStill(driver, process.pid, wanted)) return [];
    return [{ ...process, kind: kind === "holder" ? "holder" as const : "monitor" as const, locks: wanted }];
  });
  const held = new Set([...recorded, ...carriers.flatMap(({ locks }) => locks.map(({ key }) => key))]);
  const finished = missing.filter((resource) => resource.keys.every((key) => held.has(key)));
  if (carriers.length === 0 || finished.length === 0) return known;
  failpoint("attach.finishing");
  const updated = store.update(record, (current) => ({
    ...current,
    carriers: [...current.carriers, ...carriers],
    resources: [
      ...current.resources,
      ...finished.map(({ type, name, access, keys }) => ({ type, name, access, keys })),
    ],
  }));
  failpoint("attach.finished");
  const names = finished.map(({ type, name }) => `${type} ${name}`).join(", ");
  return found(
    updated,
    [...known.repairs, `finished the acquire of ${names} that was cut off`],
    known.warnings,
  );
}

function isHeldStill(driver: Driver, pid: number, locks: CarriedLock[]): boolean {
  return driver.evidence([{ pid, kind: "guest", locks }]).flat().every(({ held }) => held !== false);
}

/**
 * Whether the kernel shows each lock that the records name; one question for all guests. What a paused guest gave up
 * is not lost, and a guest that has ended meanwhile has lost nothing.
 */
function withEvidence(driver: Driver, guests: readonly AttachedGuest[]): AttachedGuest[] {
  const evidence = driver.evidence(guests.flatMap(({ record }) => claimsOf(record)));
  let next = 0;
  const judged = guests.map((guest) => {
    const own = evidence.slice(next, next += guest.record.carriers.length).flat();
    const lost = lostResources(guest.record, own);
    return { ...guest, lost, locked: lockedOf(lost, own) };
  });
  return judged.filter(({ lost, record }) => lost.length === 0 || lifeOf(record.carriers[0]) !== "dead");
}

/** A guest of a driver without locks is not locked, and has lost nothing. */
function lockedOf(lost: readonly RecordedResource[], evidence: readonly LockEvidence[]): Known {
  if (lost.length > 0 || evidence.length === 0) return false;
  return evidence.some(({ held }) => held === null) ? null : true;
}
