import type { Driver } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { waitForEnd } from "../process/ending.ts";
import { lifeOf } from "../process/process_identity.ts";
import type { AttachedGuest } from "./attach_guests.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { claimsOf, lostResources, stateByLocks } from "./lost_locks.ts";
import { signalGuest } from "./signal_guest.ts";

/** What is to be done to a guest that runs without a lock that it should have. */
export type LostLockAction = "leave" | "pause" | "kill";

/** What was done. `paused` only when it stands still, `killed` only when it has ended. */
export type LostLockFate = "left" | "paused" | "killed";

/** How a guest is paused or killed, and by which driver its locks are seen. */
export interface LostLockMeans {
  store: GuestStore;
  driver: Driver;
  action: LostLockAction;
  /** Pauses a guest, by its monitor or by a signal. */
  stopProcessors(record: GuestRecord): Promise<void>;
}

/** How long a killed guest may take to end, in milliseconds. */
const KILL_MS = 10_000;

/**
 * Looks once more at a guest that seems to have lost a lock, or had, now that nobody else works on it: a release that
 * was on its way is no loss. Then notes its state and does what is wanted.
 * @returns undefined when the guest has ended meanwhile; a guest with a `fault` was left, since what was wanted could not
 * be done
 */
export async function settleLostLocks(
  guest: AttachedGuest,
  means: LostLockMeans,
): Promise<(AttachedGuest & { fate: LostLockFate }) | undefined> {
  return await means.store.withGuest(guest.record.uuid, async () => {
    const entry = means.store.reread(guest.record);
    if (entry?.kind !== "record") return undefined;
    const { record } = entry;
    const lost = lostResources(record, means.driver.evidence(claimsOf(record)).flat());
    if (lost.length > 0 && lifeOf(record.carriers[0]) === "dead") return undefined;
    const noted = noteState(means.store, record, lost.length > 0 ? "lost" : "held");
    if (noted === undefined) return undefined;
    const locked = lost.length > 0 ? false : guest.lost.length > 0 ? true : guest.locked;
    failpoint("attach.lost-noted");
    const done = lost.length === 0 ? { fate: "left" as const } : await actOrFault(noted, means);
    const { obstacle, ...rest } = guest;
    const why = lost.length === 0 || obstacle === undefined ? {} : { obstacle };
    return { ...rest, ...why, record: noted, lost, locked, ...done };
  });
}

function noteState(store: GuestStore, record: GuestRecord, locks: "held" | "lost"): GuestRecord | undefined {
  const state = stateByLocks(record, locks);
  if (state === record.state) return record;
  failpoint("attach.lost");
  try {
    return store.update(record, (current) => ({ ...current, state }));
  } catch (error) {
    if (error instanceof LockvisorError && error.code === "data") return undefined; // it has ended
    throw error;
  }
}

/** So that nobody says that it runs, once it has its locks again. */
function noteHalt(store: GuestStore, record: GuestRecord): void {
  try {
    store.update(record, (current) => ({ ...current, halted: true }));
  } catch (error) {
    if (!(error instanceof LockvisorError) || error.code !== "data") throw error; // `data`: it has ended
  }
}

/** What cannot be done to one guest must not keep others from being looked after. */
async function actOrFault(
  record: GuestRecord,
  means: LostLockMeans,
): Promise<{ fate: LostLockFate; fault?: LockvisorError }> {
  try {
    return { fate: await act(record, means) };
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    return { fate: "left", fault: error };
  }
}

async function act(
  record: GuestRecord,
  { store, action, stopProcessors }: LostLockMeans,
): Promise<LostLockFate> {
  switch (action) {
    case "leave":
      return "left";
    case "pause":
      await stopProcessors(record);
      noteHalt(store, record);
      return "paused";
    case "kill":
      signalGuest(record, "SIGKILL", "kill");
      if (await waitForEnd(record.carriers[0], { timeoutMs: KILL_MS }) !== "ended") throw unkillable(record);
      if (record.migration === undefined) store.remove(record);
      return "killed";
  }
}

function unkillable({ name, carriers: [{ pid }] }: GuestRecord): LockvisorError {
  return new LockvisorError(
    "locked",
    `guest "${name}" (pid ${pid}) does not end, not even by SIGKILL; see /proc/${pid}/stack for what it waits for`,
  );
}
