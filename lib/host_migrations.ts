import {
  processCancelIn,
  processCancelOut,
  processCompleteIn,
  processCompleteOut,
} from "./domain_migration.ts";
import type { Holder, Known } from "./driver/contract.ts";
import type { Migration } from "./driver/migration.ts";
import { LockvisorError } from "./errors.ts";
import type { HostSession } from "./host_session.ts";
import { isUuid, normaliseUuid } from "./identity/key.ts";
import { runningGuest } from "./manager/attached_record.ts";
import type { GuestRecord, GuestState } from "./manager/guest_record.ts";
import { isLockvisor } from "./manager/guest_view.ts";
import { lookAtQemu } from "./manager/migrating_qemu.ts";
import { type NextStep, nextStep, type QemuView } from "./manager/migration_plan.ts";
import { findKnownGuest } from "./past_guest.ts";

/** A guest of this host that is on its way, by its record. */
export type MigratingRecord = GuestRecord & { migration: Migration };

/** Which side of a migration is meant. */
export type MigrationSide = Migration["role"];

/** A migration as this host sees it. */
export interface ObservedMigration {
  record: MigratingRecord;
  /** What QEMU tells; undefined when it does not answer. */
  view: QemuView | undefined;
  /** Whether the other side has its half of the locks. */
  other: { held: Known; holders: Holder[] };
  next: NextStep;
}

/** The records of guests that are on their way, the leaving ones first. */
export function migratingRecords({ store }: Pick<HostSession, "store">): MigratingRecord[] {
  return store.list().flatMap((entry) =>
    entry.kind === "record" && entry.record.migration !== undefined
      ? [{ ...entry.record, migration: entry.record.migration }]
      : []
  );
}

/** What `findMigration` has found: a side of a migration, or a guest that is on no way (any more). */
export type FoundMigration =
  | { kind: "migrating"; record: MigratingRecord }
  | { kind: "at-rest"; record: GuestRecord }
  | { kind: "past"; uuid: string };

/**
 * The side of a guest's migration on this host, by its name or UUID.
 * @param side which one, where both are on this host
 * @throws {LockvisorError} `usage` when both are and none was named, `data` for a guest that nobody knows
 */
export async function findMigration(
  session: HostSession,
  nameOrUuid: string,
  side: MigrationSide | undefined,
): Promise<FoundMigration> {
  const uuid = isUuid(nameOrUuid) ? normaliseUuid(nameOrUuid) : undefined;
  const found = migratingRecords(session).filter((record) =>
    record.uuid === uuid || record.name === nameOrUuid
  );
  const meant = side === undefined ? found : found.filter(({ migration }) => migration.role === side);
  const [first, second] = meant;
  if (first !== undefined && second !== undefined) {
    throw new LockvisorError(
      "usage",
      `guest "${first.name}" migrates within this host; say which side: --side out or --side in`,
    );
  }
  if (first !== undefined) return { kind: "migrating", record: first };
  const known = await findKnownGuest(session, nameOrUuid);
  return known.kind === "past" ? known : { kind: "at-rest", record: asShown(known.record) };
}

/** A record says `starting` until somebody writes it anew. */
function asShown(record: GuestRecord): GuestRecord {
  const hasBegun = record.state === "starting" && !isLockvisor(record.carriers[0].pid);
  return hasBegun ? { ...record, state: "running" } : record;
}

/** Every migration of this host, or one guest's, with what is left to do. */
export async function observeMigrations(
  session: HostSession,
  records: readonly MigratingRecord[] = migratingRecords(session),
): Promise<ObservedMigration[]> {
  const observed: ObservedMigration[] = [];
  for (const record of records) observed.push(await observe(session, record));
  return observed;
}

/** What cannot be known of one guest must not hide the others. */
async function observe(session: HostSession, record: MigratingRecord): Promise<ObservedMigration> {
  const view = await viewOrUndefined(record);
  try {
    const { plugin } = await session.domainLock(record);
    const other = await plugin.driver.otherSide(runningGuest(record), record.migration);
    const next: NextStep = view === undefined
      ? { action: "wait", why: "its QEMU does not answer" }
      : nextStep(record.migration, view, other.held, Date.now());
    return { record, view, other, next };
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    return { record, view, other: { held: null, holders: [] }, next: { action: "wait", why: error.message } };
  }
}

async function viewOrUndefined(record: GuestRecord): Promise<QemuView | undefined> {
  try {
    return await lookAtQemu(record);
  } catch (error) {
    if (error instanceof LockvisorError) return undefined;
    throw error;
  }
}

/** What was done about a migration, in words for people. */
export type MigrationOutcome = "completed" | "cancelled" | "waiting";

/** What became of one side of a migration: also in which state the guest is on this host now, and who has the other half. */
export interface MigrationEnd {
  outcome: MigrationOutcome;
  state: GuestState;
  holders: Holder[];
}

/** Completes or cancels one side of a migration. */
export async function endMigration(
  session: HostSession,
  record: MigratingRecord,
  { action, waitMs }: { action: "complete" | "cancel"; waitMs: number },
): Promise<MigrationEnd> {
  const lock = await session.domainLock(record);
  if (record.migration.role === "out") {
    if (action === "cancel") {
      const { state } = await processCancelOut(lock, record);
      return { outcome: "cancelled", state, holders: [] };
    }
    await processCompleteOut(lock, record);
    return { outcome: "completed", state: "stopped", holders: [] };
  }
  if (action === "cancel") {
    await processCancelIn(lock, record);
    return { outcome: "cancelled", state: "stopped", holders: [] };
  }
  const arrival = await processCompleteIn(lock, record, { waitMs });
  const { state } = arrival.record;
  return arrival.outcome === "complete"
    ? { outcome: "completed", state, holders: [] }
    : { outcome: "waiting", state, holders: arrival.holders };
}

/** A guest that has all its locks back, after a cancel that was cut off, runs on. Any other is left as it is. */
export async function finishCancel(session: HostSession, record: GuestRecord): Promise<GuestRecord> {
  return record.pending === "resume"
    ? await processCancelOut(await session.domainLock(record), record)
    : record;
}
