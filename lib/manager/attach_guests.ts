import type { Driver, Known, LockEvidence, NotedGuest } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { commandLine, type Life, lifeOf } from "../process/process_identity.ts";
import {
  followFork,
  incomingHeirs,
  isRecordOf,
  recordFromNotes,
  unrecordedLocks,
  type Whereabouts,
  whereabouts,
} from "./attach_plan.ts";
import type { GuestRecord, RecordedResource } from "./guest_record.ts";
import { type GuestStore, RECORD_SIDES, type RecordEntry } from "./guest_store.ts";
import { HeldLocks, isAsRecorded, keysIn, provenBy } from "./held_locks.ts";
import { claimsOf, lostResources } from "./lost_locks.ts";
import { type GuestUnderRepair, mendGuest, type MendingContext } from "./mend_guest.ts";
import type { Obstacle } from "./obstacle.ts";

/** A guest as attaching found it. */
export interface AttachedGuest {
  record: GuestRecord;
  /** What was mended, one line each. */
  repairs: string[];
  /** What is to be known about the guest, one line each. */
  warnings: string[];
  /** Resources whose locks the kernel does not show any more. */
  lost: RecordedResource[];
  /** Why they could not be taken again. */
  obstacle?: Obstacle;
  /** Whether the guest holds its locks; null where the kernel does not show them. */
  locked: Known;
  /** Why the guest could not be dealt with; the others were. */
  fault?: LockvisorError;
}

/** A guest that attaching may be meant for. */
export interface AttachCandidate {
  uuid: string;
  name: string;
}

/** What attaching works with. */
export interface AttachContext {
  store: GuestStore;
  hostId: string;
  /** The drivers in use, by name; each is asked for its locks once. */
  drivers: ReadonlyMap<string, Driver>;
  /** The records, if they have been read just now. */
  entries?: readonly RecordEntry[];
  /** Told of each record that cannot be read, and whose guest nothing else tells of. */
  problem?: (error: LockvisorError) => void;
  /** Which of the guests are meant; default: all. What it throws leaves everything as it is. */
  choose?: <Candidate extends AttachCandidate>(candidates: Candidate[]) => Candidate[];
}

/** A guest that was found, and what is to be done about it. */
type Finding =
  & AttachCandidate
  & MendingContext
  & { plugin: string }
  & (
    /** The record agrees with the kernel. */
    | { kind: "well"; record: GuestRecord }
    | { kind: "recorded"; record: GuestRecord }
    | { kind: "noted"; noted: NotedGuest }
  );

/**
 * Compares every guest of this host with the kernel and mends what its records tell wrong: lost and damaged records
 * are made again from notes, a guest that forked is followed, what was cut off is finished, lost locks are taken again
 * that nobody had in between, and records of guests that are gone are taken away. A guest whose record agrees with the
 * kernel is not looked at twice.
 */
export async function attachGuests(context: AttachContext): Promise<AttachedGuest[]> {
  const entries = context.entries ?? context.store.list();
  const findings = [...context.drivers].flatMap(([plugin, driver]) =>
    findGuests(context, entries, { plugin, driver })
  );
  const chosen = (context.choose ?? ((all) => all))(findings);
  const found = new Set(findings.map(({ uuid }) => uuid));
  for (const entry of entries) {
    if (entry.kind === "damaged" && !found.has(entry.uuid)) context.problem?.(unreadable(entry));
  }
  const attached: AttachedGuest[] = [];
  for (const finding of chosen) {
    const guest = finding.kind === "well" ? asRecorded(finding) : await attend(context, finding);
    if (guest !== undefined) attached.push(guest);
  }
  return attached;
}

function unreadable({ file, reason }: Extract<RecordEntry, { kind: "damaged" }>): LockvisorError {
  return new LockvisorError(
    "data",
    `record ${file} cannot be read: ${reason}; no notes tell of its guest, so it cannot be made again; remove the file when the guest has ended`,
  );
}

/** All guests of a driver that live, by their records and by what the kernel shows beside those. */
function findGuests(
  { store }: AttachContext,
  entries: readonly RecordEntry[],
  { plugin, driver }: { plugin: string; driver: Driver },
): Finding[] {
  const seen = new HeldLocks(driver.holdings());
  const mending = { store, driver, seen, plugin };
  const records = entries.flatMap((entry) =>
    entry.kind === "record" && entry.record.plugin === plugin ? [entry.record] : []
  );
  const leases = once(() => driver.isHeld(records.filter(isDead).flatMap(({ leaseKeys }) => leaseKeys)));
  const recorded = records.flatMap((record): Finding[] => {
    const { uuid, name, carriers: [process] } = record;
    if (seen.of(process) !== undefined || lifeOf(process) === "alive") {
      const kind = isAsRecorded(record, seen) ? "well" : "recorded";
      return [{ ...mending, uuid, name, kind, record }];
    }
    // The record leads to what the migration has left beside its keys, until that is brought to its end.
    if (record.migration !== undefined) return [{ ...mending, uuid, name, kind: "recorded", record }];
    // One question for all guests that have ended: mostly none of them has left its lease to a child.
    const isFree = isDead(record) && leases() === false;
    if (isFree || find(record.carriers[0], record, mending).kind === "gone") {
      failpoint("attach.gone");
      store.remove(record);
      return [];
    }
    return [{ ...mending, uuid, name, kind: "recorded", record }];
  });
  const noted = driver.notedGuests([...new Set(unrecordedLocks(seen.holdings, records).flatMap(keysIn))])
    .filter((each) => !records.some((record) => isRecordOf(record, each)))
    .filter((each) => ["same", "forked"].includes(find(each.process, each, mending).kind))
    .map((each): Finding => ({
      ...mending,
      uuid: each.guest.uuid,
      name: each.guest.name,
      kind: "noted",
      noted: each,
    }));
  return [...recorded, ...noted];
}

function isDead({ carriers: [process] }: GuestRecord): boolean {
  return lifeOf(process) === "dead";
}

function once<Value>(find: () => Value): () => Value {
  let found: { value: Value } | undefined;
  return () => (found ??= { value: find() }).value;
}

function find(
  process: GuestRecord["carriers"][0] | NotedGuest["process"],
  { leaseKeys, migration }: Pick<GuestRecord, "leaseKeys" | "migration">,
  { driver, seen: { holdings } }: Pick<MendingContext, "driver" | "seen">,
): Whereabouts {
  const life: Life = lifeOf(process);
  if (migration === undefined) {
    return whereabouts(life, leaseKeys, { holdings, leaseHeld: () => driver.isHeld(leaseKeys), lifeOf });
  }
  // Whoever else has the lease is the migration's other side.
  const heirs = migration.role === "out" ? [] : incomingHeirs(holdings, leaseKeys);
  return whereabouts(life, leaseKeys, { holdings: heirs, leaseHeld: () => false, lifeOf });
}

function asRecorded({ record, seen }: { record: GuestRecord; seen: HeldLocks }): AttachedGuest {
  return { record, repairs: [], warnings: [], lost: [], locked: provenBy(record, seen) };
}

/** Deals with one guest while no other lockvisor works on it. A guest that cannot be dealt with stops nobody else. */
async function attend(
  context: AttachContext,
  finding: Exclude<Finding, { kind: "well" }>,
): Promise<AttachedGuest | undefined> {
  const { store, driver } = finding;
  // The record as far as it is known, for the report.
  let found: GuestUnderRepair | undefined;
  try {
    return await store.withGuest(finding.uuid, async () => {
      found = finding.kind === "noted" ? restoreRecord(context, finding) : followGuest(finding);
      if (found === undefined) return undefined;
      return withEvidence(driver, await mendGuest(finding, found));
    });
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    const record = found?.record ??
      (finding.kind === "recorded" ? finding.record : makeRecord(context, finding));
    return { record, repairs: [], warnings: [], lost: [], locked: null, fault: error };
  }
}

function followGuest(finding: Extract<Finding, { kind: "recorded" }>): GuestUnderRepair | undefined {
  const { store } = finding;
  const entry = store.reread(finding.record); // again: another lockvisor may have worked on it until now
  if (entry?.kind !== "record") return undefined;
  const { record } = entry;
  const [{ pid }] = record.carriers;
  const where = find(record.carriers[0], record, finding);
  switch (where.kind) {
    case "gone":
      if (record.migration === undefined) store.remove(record);
      return undefined;
    case "hidden":
      return found(record, [], [
        `its process ${pid} has ended, and who has its locks now cannot be seen from here`,
      ]);
    case "unseen":
      return found(record, [], [
        `its process ${pid} is in another pid namespace, or hidden by how /proc is mounted (hidepid)`,
      ]);
    case "forked": {
      failpoint("attach.following");
      const followed = store.update(record, (current) => followFork(current, where.heir, lifeOf));
      failpoint("attach.followed");
      return found(followed, [
        `followed it from process ${pid} to ${where.heir.process.pid}, which it forked`,
      ]);
    }
    case "same":
      return found(record);
  }
}

type NotedFinding = Extract<Finding, { kind: "noted" }>;

function restoreRecord(context: AttachContext, finding: NotedFinding): GuestUnderRepair | undefined {
  const { store, noted } = finding;
  for (const side of RECORD_SIDES) {
    const entry = store.read(noted.guest.uuid, side);
    // It has started meanwhile, or was made again.
    if (entry?.kind === "record" && isRecordOf(entry.record, noted)) return found(entry.record);
  }
  const record = makeRecord(context, finding);
  failpoint("attach.restoring");
  store.claim(record);
  failpoint("attach.restored");
  const warnings = noted.grants !== undefined
    ? []
    : noted.withoutNotes.map(({ type, name }) =>
      `${type} ${name} was given up by it before its record was lost; if it is paused and still has that ${type}, acquire it before it runs on`
    );
  return found(record, ["made its record again from its notes"], warnings);
}

function makeRecord({ hostId }: AttachContext, finding: NotedFinding): GuestRecord {
  const { noted, plugin, seen: { holdings } } = finding;
  const where = find(noted.process, noted, finding);
  const process = where.kind === "forked" ? where.heir.process : noted.process;
  return recordFromNotes(noted, process, { holdings, hostId, plugin, command: commandLine(process.pid) });
}

function found(record: GuestRecord, repairs: string[] = [], warnings: string[] = []): GuestUnderRepair {
  return { record, repairs, warnings };
}

/** What the kernel shows of the locks at the end. A guest that has ended meanwhile has lost nothing. */
function withEvidence(driver: Driver, guest: GuestUnderRepair): AttachedGuest | undefined {
  const evidence = driver.evidence(claimsOf(guest.record)).flat();
  const lost = lostResources(guest.record, evidence);
  if (lost.length === 0) {
    const { obstacle: _, ...rest } = guest;
    return { ...rest, lost, locked: lockedOf(evidence) };
  }
  if (lifeOf(guest.record.carriers[0]) === "dead") return undefined;
  return { ...guest, lost, locked: false };
}

/** A guest of a driver without locks is not locked, and has lost nothing. */
function lockedOf(evidence: readonly LockEvidence[]): Known {
  if (evidence.length === 0) return false;
  return evidence.some(({ held }) => held === null) ? null : true;
}
