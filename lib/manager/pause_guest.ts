import type { Carrier, GivenUpKey, GrantedKey, TakeBackOutcome } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import {
  type AttachedContext,
  currentRecord,
  livingRecord,
  refuseLostLocks,
  runningGuest,
} from "./attached_record.ts";
import { jobUnderWay } from "./disk_job_record.ts";
import { finishCutOff } from "./finish_cut_off.ts";
import { hasMonitor } from "./guest_monitor.ts";
import { type GuestRecord, settled, withGrants } from "./guest_record.ts";
import { keysToGiveUp } from "./hotplug_plan.ts";
import { formatLockState, parseLockState } from "./lock_state.ts";
import { ownLease } from "./lost_locks.ts";
import { startProcessors, stopProcessors } from "./processors.ts";
import { holderText, lockedError } from "./refusal.ts";

/** What a paused guest does with its locks: virtual machines keep them unless somebody asks for the disks. */
export type LocksWhilePaused = "kept" | "released";

/** The state of what a guest has given up, as text. */
export function formatState({ givenUp }: GuestRecord): string {
  return formatLockState(givenUp);
}

/**
 * Notes that a guest is paused. With `released` it gives the locks on its resources up, but for the lease on
 * itself: it still is this guest. The processors are stopped before anything is released.
 */
export async function pauseGuest(
  { store, driver }: AttachedContext,
  guest: GuestRecord,
  locks: LocksWhilePaused,
): Promise<GuestRecord> {
  return await store.withGuest(guest.uuid, async () => {
    const record = await finishCutOff({ store, driver }, currentRecord(store, guest));
    return await finishPausing({ store, driver }, record, locks === "kept" ? "pause" : "pause-release");
  });
}

/** Stops the processors, and gives the locks up if that is wanted. May be done again after it was cut off anywhere. */
export async function finishPausing(
  { store, driver }: Pick<AttachedContext, "store" | "driver">,
  record: GuestRecord,
  pending: "pause" | "pause-release",
): Promise<GuestRecord> {
  if (pending === "pause-release") {
    await driver.requireReach?.(runningGuest(record), keysToGiveUp(record, record.resources));
  }
  // Written first: a guest whose processors stand still must not pass for a running one.
  const announced = hasMonitor(record)
    ? store.update(record, (current) => {
      if (pending === "pause-release") refuseDiskJobs(current);
      return { ...current, pending };
    })
    : record;
  try {
    await stopProcessors(announced, "leave");
  } catch (error) {
    store.update(announced, withoutChange);
    throw error;
  }
  failpoint("pause.stopped");
  if (pending === "pause") return store.update(announced, (current) => settled(current, "paused"));
  return await giveUpLocks({ store, driver }, announced);
}

/** QEMU writes what a job writes to while the guest stands still, too. @throws {LockvisorError} `locked` */
function refuseDiskJobs(record: GuestRecord): void {
  const why = jobUnderWay(record);
  if (why !== undefined) {
    throw new LockvisorError("locked", `guest "${record.name}" gives no locks up: it ${why}`);
  }
}

/** Gives up what a guest that is paused still has of its resources. May be done again after it was cut off anywhere. */
export async function giveUpLocks(
  { store, driver }: Pick<AttachedContext, "store" | "driver">,
  record: GuestRecord,
): Promise<GuestRecord> {
  // Written before the first lock goes: whoever resumes after a crash takes back what is still held as well.
  let paused = record;
  await driver.giveUp(runningGuest(record), keysToGiveUp(record, record.resources), (givenUp) => {
    // What an earlier pause wrote stays: a resume that was refused and cut off has found a later generation, and no
    // carrier of a record that was made again tells of it.
    paused = store.update(record, (current) => ({
      ...settled(current, "paused"),
      givenUp: [...withGrants(givenUp, current.givenUp)],
    }));
  });
  failpoint("pause.unnoted");
  return paused.state === "paused" && paused.pending === undefined
    ? paused
    : store.update(record, (current) => settled(current, "paused"));
}

/**
 * Takes back what a paused guest gave up, then lets it run on.
 * @throws {LockvisorError} `locked` when somebody has or had one of its disks in between; nothing has changed then
 */
export async function resumeGuest(
  { store, driver }: AttachedContext,
  guest: GuestRecord,
  { changes, state }: { changes: "refuse" | "accept"; state?: string | undefined },
): Promise<GuestRecord> {
  const told = state === undefined ? [] : parseLockState(state);
  return await store.withGuest(guest.uuid, async () => {
    const record = await finishCutOff({ store, driver }, currentRecord(store, guest));
    const givenUp = givenUpKeys(record, told);
    let grants: readonly GrantedKey[] | undefined;
    let carriers: readonly Carrier[] = [];
    if (givenUp.length > 0) {
      const result = await driver.takeBack(runningGuest(record), givenUp, changes);
      if (result.outcome !== "taken") throw takeBackError(record, result);
      grants = result.grants;
      carriers = result.carriers ?? [];
    }
    const locked = store.update(record, (current) => ({
      ...current,
      carriers: [
        carriers[0] ?? current.carriers[0],
        ...carriers.length > 0 ? carriers.slice(1) : current.carriers.slice(1),
      ],
      grants: withGrants(current.grants, grants),
      givenUp: [],
      pending: "resume",
    }));
    failpoint("resume.recorded");
    return await finishResuming({ store, driver }, locked);
  });
}

/** What was to be done did not come about. */
function withoutChange({ pending: _, ...record }: GuestRecord): GuestRecord {
  return record;
}

/** Lets a guest run on that has its locks. May be done again after it was cut off anywhere. */
export async function finishResuming(
  { store, driver }: Pick<AttachedContext, "store" | "driver">,
  locked: GuestRecord,
): Promise<GuestRecord> {
  try {
    // Without the lease on itself the guest may have been started a second time.
    const wanted = [...locked.resources.filter(({ keys }) => keys.length > 0), ...ownLease(locked)];
    refuseLostLocks(driver, locked, wanted);
    await startProcessors(locked);
  } catch (error) {
    store.update(locked, withoutChange);
    throw error;
  }
  failpoint("resume.continued");
  return store.update(locked, (current) => settled(current, "running"));
}

/**
 * What is to be taken back: what the record tells, with the generations that the caller was told when the guest paused
 * where those are lower. What the record does not name as given up is held.
 * @throws {LockvisorError} `data` when the caller speaks of a key that is not this guest's
 */
export function givenUpKeys(
  record: Pick<GuestRecord, "name" | "givenUp" | "resources">,
  told: readonly GivenUpKey[],
): GivenUpKey[] {
  const own = new Set(record.resources.flatMap(({ keys }) => keys));
  const foreign = told.find(({ key }) => !own.has(key));
  if (foreign !== undefined) {
    throw new LockvisorError(
      "data",
      `the state speaks of key ${foreign.key}, which guest "${record.name}" does not have`,
    );
  }
  const generations = new Map(told.map(({ key, generation }) => [key, generation]));
  return record.givenUp.map((each) => ({
    ...each,
    generation: Math.min(each.generation, generations.get(each.key) ?? each.generation),
  }));
}

/** The state of all locks of a guest on its resources: those that it holds, and those that a pause has given up. */
export async function inquireGuest({ driver, store }: AttachedContext, guest: GuestRecord): Promise<string> {
  const record = livingRecord(store, guest);
  const givenUp = new Set(record.givenUp.map(({ key }) => key));
  const held = keysToGiveUp(record, record.resources).filter((key) => !givenUp.has(key));
  return formatLockState([...record.givenUp, ...await driver.inquire(runningGuest(record), held)]);
}

function takeBackError(
  record: GuestRecord,
  result: Exclude<TakeBackOutcome, { outcome: "taken" }>,
): LockvisorError {
  const resource = record.resources.find(({ keys }) => keys.includes(result.key));
  const { type, name, access } = resource ??
    { type: "lease" as const, name: result.key, access: "exclusive" as const };
  const guest = `guest "${record.name}" stays paused`;
  switch (result.outcome) {
    case "refused":
      return lockedError({ resource: { type, name, access }, holders: result.holders });
    case "changed": {
      const by = result.had === null ? "somebody" : holderText(result.had);
      const text =
        `${type} ${name} was locked by ${by} in between, and may have been written; ${guest}; if its memory may go on all the same: lockvisor resume --accept-changes`;
      return new LockvisorError("locked", text, {
        details: { resource: { type, name, access }, holder: result.had },
      });
    }
    case "lost":
      return new LockvisorError(
        "data",
        `the lock file of ${type} ${name} was removed while the guest was paused; ${guest}; release and acquire the ${type} anew`,
      );
  }
}
