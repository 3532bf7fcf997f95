import { LockvisorError } from "../errors.ts";
import type { Processors } from "./conversation.ts";

/** The locks of the guest that comes, on the host that it comes to. */
export interface ArrivalLocks {
  /** The guest has come: takes the source's half. `settled`: somebody else has completed or cancelled it. */
  complete(options: { waitMs: number }): Promise<Arrival>;
  /** The guest does not come: ends its process, and removes what was noted of it. @throws {LockvisorError} */
  cancel(): Promise<void>;
  /** Lets the guest of a process run if it has come, is paused, and has all of its locks. @throws {LockvisorError} */
  resume(pid: number): Promise<void>;
}

/** What asking for the source's half has given. */
export interface Arrival {
  outcome: "complete" | "waiting" | "settled";
  /** Who still has the other half, in words. */
  holders: string;
}

/** How long a receiver waits without a driver for the source to let go, in milliseconds, and how often it looks. */
const GONE_MS = 60_000;
const HELD_MS = 600_000;
const PAUSE_MS = 500;

/** The guest runs here: completes as soon as the source's process has ended. */
export function completeAlone(locks: ArrivalLocks): Promise<Arrival> {
  return untilComplete(locks, GONE_MS);
}

/**
 * Everything has come, the guest stands still, and nobody here knows whether it was let go. To end it could lose it for good;
 * to let it run is only safe once the source's process has ended, which its half of the locks tells. It stays for whoever
 * decides: cancelled, here and at the source, it runs on there; completed at the source, it runs here.
 */
export async function holdAlone(
  locks: ArrivalLocks,
  { pid, processors }: { pid: number; processors: Processors },
): Promise<void> {
  const { outcome } = await untilComplete(locks, HELD_MS);
  // The agent may have been first to complete it.
  if (outcome !== "waiting" && processors === "run") await locks.resume(pid);
}

/** Somebody else may be at the guest's monitor just now, or at its record. */
async function tryToComplete(locks: ArrivalLocks): Promise<Arrival> {
  try {
    return await locks.complete({ waitMs: 0 });
  } catch (error) {
    const passes = error instanceof LockvisorError &&
      (error.code === "unavailable" || error.code === "locked");
    if (passes) return { outcome: "waiting", holders: "" };
    throw error;
  }
}

/** Asks again and again instead of waiting once: on one host, who waits is in the way of whoever completes the source. */
async function untilComplete(locks: ArrivalLocks, withinMs: number): Promise<Arrival> {
  const deadline = performance.now() + withinMs;
  while (true) {
    const arrival = await tryToComplete(locks);
    if (arrival.outcome !== "waiting" || performance.now() > deadline) return arrival;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}
