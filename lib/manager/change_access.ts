import type { ResolvedResource } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { type AccessChange, asChanged, planAccess } from "./access_plan.ts";
import { type AttachedContext, currentRecord, refuseLostLocks, runningGuest } from "./attached_record.ts";
import {
  byKeys,
  finishAccess,
  giveUpKeys,
  noteChanging,
  noteUnchanged,
  recordAccess,
} from "./finish_access.ts";
import { finishCutOff } from "./finish_cut_off.ts";
import { type GuestRecord, withGrants } from "./guest_record.ts";
import { type HotplugResult, orAfterAttach } from "./hotplug_guest.ts";
import { type HotplugStep, refuseAlias, refuseGivenUp } from "./hotplug_plan.ts";
import { lockedError } from "./refusal.ts";

/**
 * Gives a guest that runs another access to resources that it has: all or none. It has their locks all the time, in the
 * stronger or in the weaker mode.
 * @throws {LockvisorError} `locked` with the holders' names where it gets stronger, `data` for what the guest does not
 * have, has lost or has given up, `unavailable` for a driver that cannot
 */
export function changeAccess(
  context: AttachedContext,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugResult> {
  return orAfterAttach(context, guest.uuid, () => changeOnce(context, guest, resources));
}

async function changeOnce(
  context: AttachedContext,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugResult> {
  const { store, driver } = context;
  return await store.withGuest(guest.uuid, async () => {
    const record = await finishCutOff(context, currentRecord(store, guest));
    const steps = planAccess(record, resources);
    const changes = steps.flatMap((step) => step.kind === "change" ? [step.change] : []);
    const recorded = steps.map((step) => step.kind === "change" ? step.change.recorded : step.recorded);
    refuseGivenUp(record, changes.map(({ resource }) => resource));
    refuseLostLocks(driver, record, recorded.filter(({ keys }) => keys.length > 0));
    return {
      record: await change(context, record, unique(changes)),
      report: {
        done: steps.map((step): HotplugStep =>
          step.kind === "change"
            ? { kind: "changed", resource: step.change.resource }
            : { kind: "held", resource: step.resource }
        ),
        warnings: [],
      },
    };
  });
}

function unique(changes: readonly AccessChange[]): AccessChange[] {
  return [...new Map(changes.map((each) => [each.recorded, each])).values()];
}

/**
 * The same for a guest that nobody else works on, and that nothing is to be finished of.
 * @throws {LockvisorError} `locked` with the holders' names
 */
export function changeAccessNow(
  context: Pick<AttachedContext, "store" | "driver">,
  record: GuestRecord,
  changes: readonly AccessChange[],
): Promise<GuestRecord> {
  return change({ ...context, plugin: record.plugin, hostId: record.hostId }, record, changes);
}

/** What may be refused goes first, and what cannot be taken back goes last. */
async function change(
  context: AttachedContext,
  record: GuestRecord,
  changes: readonly AccessChange[],
): Promise<GuestRecord> {
  const { driver, plugin } = context;
  const { keeping, leaving } = byKeys(driver, changes);
  const coming = keeping.filter(({ resource, recorded }) =>
    recorded.keys.length === 0 && driver.keysOf(resource).length > 0
  );
  const staying = keeping.filter((each) => !coming.includes(each));
  if (staying.some(({ recorded }) => recorded.keys.length > 0) && driver.changeAccess === undefined) {
    throw new LockvisorError(
      "unavailable",
      `cannot change the access of guest "${record.name}": plugin ${plugin} does not offer that; release what it has and acquire it anew`,
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
  { store, driver }: AttachedContext,
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
  context: AttachedContext,
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
  { store, driver }: AttachedContext,
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

function lost(store: AttachedContext["store"], record: GuestRecord, key: string): LockvisorError {
  currentRecord(store, record); // it may have ended
  const { type, name } = record.resources.find(({ keys }) => keys.includes(key)) ??
    { type: "lease", name: key };
  return new LockvisorError(
    "data",
    `${type} ${name} of guest "${record.name}" is not locked any more, or its lock file was replaced; run: lockvisor attach`,
  );
}
