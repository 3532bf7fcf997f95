import { LockvisorError } from "../errors.ts";
import { type AccessChange, asChanged } from "./access_plan.ts";
import { type AttachedContext, currentRecord, runningGuest } from "./attached_record.ts";
import {
  byKeys,
  finishAccess,
  giveUpKeys,
  noteChanging,
  noteUnchanged,
  recordAccess,
} from "./finish_access.ts";
import { type GuestRecord, withGrants } from "./guest_record.ts";
import { refuseAlias } from "./hotplug_plan.ts";
import { lockedError } from "./refusal.ts";

/** By what locks are changed, where that is written down, and what the driver is called. */
export type ChangeContext = Pick<AttachedContext, "store" | "driver">;

/**
 * Gives a guest that nobody else works on another access to resources: all or none. What may be refused goes first, and what
 * cannot be taken back goes last.
 * @throws {LockvisorError} `locked` with the holders' names, `data` for what is lost, `unavailable` for a driver that cannot
 */
export async function applyChanges(
  context: ChangeContext,
  record: GuestRecord,
  changes: readonly AccessChange[],
): Promise<GuestRecord> {
  const { driver } = context;
  const { keeping, leaving } = byKeys(driver, changes);
  const coming = keeping.filter(({ resource, recorded }) =>
    recorded.keys.length === 0 && driver.keysOf(resource).length > 0
  );
  const staying = keeping.filter((each) => !coming.includes(each));
  if (staying.some(({ recorded }) => recorded.keys.length > 0) && driver.changeAccess === undefined) {
    throw new LockvisorError(
      "unavailable",
      `cannot change the access of guest "${record.name}": plugin ${record.plugin} does not offer that; release what it has and acquire it anew`,
    );
  }
  const locked = await lockMore(context, record, coming);
  let changed: GuestRecord;
  try {
    changed = await convert(context, locked, staying);
  } catch (error) {
    if (coming.length > 0) await takeBack(context, locked, coming);
    throw error;
  }
  if (leaving.length === 0) return changed;
  return await giveUpKeys(context, changed, leaving);
}

/** Takes the locks of what the guest has without any, because it was only read. */
async function lockMore(
  { store, driver }: ChangeContext,
  record: GuestRecord,
  changes: readonly AccessChange[],
): Promise<GuestRecord> {
  if (changes.length === 0) return record;
  const resources = changes.map(({ resource }) => resource);
  const others = record.resources.filter((one) => !changes.some(({ recorded }) => recorded === one));
  for (const resource of resources) refuseAlias(others, resource);
  const result = await driver.plug(runningGuest(record), resources);
  if (result.outcome === "refused") throw lockedError(result.refusal);
  const { carrier, grants } = result;
  return recordAccess(store, record, changes, {
    carriers: carrier.locks.length === 0 ? record.carriers : [...record.carriers, carrier],
    grants: withGrants(record.grants, grants),
    keysOf: ({ resource }) => driver.keysOf(resource),
  });
}

/** All or none: what was taken for the first time is given up again. */
async function takeBack(
  context: ChangeContext,
  record: GuestRecord,
  changes: readonly AccessChange[],
): Promise<void> {
  const back = changes.map((each) => ({
    ...each,
    resource: { ...each.resource, access: each.recorded.access },
  }));
  await finishAccess(context, noteChanging(context.store, record, back));
}

/** Brings the locks that the guest has into other modes. */
async function convert(
  { store, driver }: ChangeContext,
  record: GuestRecord,
  changes: readonly AccessChange[],
): Promise<GuestRecord> {
  if (changes.length === 0) return record;
  const locked = changes.filter(({ recorded }) => recorded.keys.length > 0);
  let noted: GuestRecord | undefined;
  const outcome = locked.length === 0
    ? undefined
    : await driver.changeAccess?.(runningGuest(record), locked.map(asChanged), () => {
      noted = noteChanging(store, record, locked);
    });
  if (outcome === undefined || outcome.outcome === "changed") {
    const grants = withGrants(record.grants, outcome?.grants);
    return recordAccess(store, noted ?? record, changes, { grants });
  }
  if (noted !== undefined) noteUnchanged(store, noted, locked);
  if (outcome.outcome === "refused") throw lockedError(outcome.refusal);
  throw lost(store, record, outcome.key);
}

function lost(store: ChangeContext["store"], record: GuestRecord, key: string): LockvisorError {
  currentRecord(store, record); // it may have ended
  const { type, name } = record.resources.find(({ keys }) => keys.includes(key)) ??
    { type: "lease", name: key };
  return new LockvisorError(
    "data",
    `${type} ${name} of guest "${record.name}" is not locked any more, or its lock file was replaced; run: lockvisor attach`,
  );
}
