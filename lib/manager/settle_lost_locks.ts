import type { Driver } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { sendSignal, waitForEnd } from "../process/ending.ts";
import { lifeOf } from "../process/process_identity.ts";
import type { AttachedGuest } from "./attach_guests.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { claimsOf, lostResources, stateByLocks } from "./lost_locks.ts";

/** What is to be done to a guest that runs without a lock that it should have. */
export type LostLockAction = "leave" | "pause" | "kill";

/** What was done. `killed` only when it has ended. */
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
 * @returns undefined when the guest has ended meanwhile
 */
export async function settleLostLocks(
  guest: AttachedGuest,
  means: LostLockMeans,
): Promise<(AttachedGuest & { fate: LostLockFate }) | undefined> {
  return await means.store.withGuest(guest.record.uuid, async () => {
    const entry = means.store.read(guest.record.uuid);
    if (entry?.kind !== "record") return undefined;
    const { record } = entry;
    const lost = lostResources(record, means.driver.evidence(claimsOf(record)).flat());
    if (lost.length > 0 && lifeOf(record.carriers[0]) === "dead") return undefined;
    const noted = noteState(means.store, record, lost.length > 0 ? "lost" : "held");
    if (noted === undefined) return undefined;
    const locked = lost.length > 0 ? false : guest.lost.length > 0 ? true : guest.locked;
    failpoint("attach.lost-noted");
    const fate = lost.length === 0 ? "left" : await act(noted, means);
    const { obstacle, ...rest } = guest;
    const why = lost.length === 0 || obstacle === undefined ? {} : { obstacle };
    return { ...rest, ...why, record: noted, lost, locked, fate };
  });
}

function noteState(store: GuestStore, record: GuestRecord, locks: "held" | "lost"): GuestRecord | undefined {
  const state = stateByLocks(record.state, locks);
  if (state === record.state) return record;
  failpoint("attach.lost");
  try {
    return store.update(record, (current) => ({ ...current, state }));
  } catch (error) {
    if (error instanceof LockvisorError && error.code === "data") return undefined; // it has ended
    throw error;
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
      return "paused";
    case "kill":
      sendSignal(record.carriers[0], "SIGKILL");
      if (await waitForEnd(record.carriers[0], { timeoutMs: KILL_MS }) !== "ended") return "left";
      store.remove(record);
      return "killed";
  }
}
