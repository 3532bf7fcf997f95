import type { Driver, Guest, ResolvedResource } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { sendSignal } from "../process/ending.ts";
import {
  commandLine,
  identifyProcess,
  lifeOf,
  lifeOfPid,
  type ProcessIdentity,
} from "../process/process_identity.ts";
import { runningGuest } from "./attached_record.ts";
import { type GuestRecord, recordedResource } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { lockedError } from "./refusal.ts";
import type { Enforcement } from "./start_guest.ts";
import { type Conflict, markUnprotected, takeWhatIsFree } from "./unprotected.ts";

/** What an adopted guest is recorded by. */
export interface AdoptedGuest {
  guest: Guest;
  process: ProcessIdentity;
  hostId: string;
  plugin: string;
}

/**
 * The process of a pid that is to become a guest.
 * @throws {LockvisorError} `data` when there is none, `permission` when it is somebody else's or hidden from us
 */
export function adoptableProcess(pid: number): ProcessIdentity {
  const process = identifyProcess(pid);
  if (process === undefined) {
    throw lifeOfPid(pid) === "unknown"
      ? new LockvisorError(
        "permission",
        `process ${pid} is hidden by how /proc is mounted (hidepid); nothing was locked`,
      )
      : new LockvisorError("data", `there is no process ${pid}, or it has ended; nothing was locked`);
  }
  if (sendSignal(process, "none") === "not-permitted") {
    throw new LockvisorError(
      "permission",
      `process ${pid} is another user's; adopt it as that user or as root with the right to signal it (CAP_KILL; see kill(2))`,
    );
  }
  return process;
}

/**
 * The record of the guest that a process is already, if it is the guest that is meant.
 * @throws {LockvisorError} `data` when the process is another guest
 */
export function adoptedBefore(
  store: GuestStore,
  guest: Guest,
  process: ProcessIdentity,
): GuestRecord | undefined {
  const records = store.list().flatMap((entry) => entry.kind === "record" ? [entry.record] : []);
  const same = records.find(({ carriers: [own] }) =>
    own.pid === process.pid && own.startTime === process.startTime && lifeOf(own) === "alive"
  );
  if (same === undefined || same.uuid === guest.uuid) return same;
  throw new LockvisorError(
    "data",
    `process ${process.pid} is guest "${same.name}" (uuid ${same.uuid}) already; lock more for it with: lockvisor acquire`,
  );
}

/**
 * Takes the locks of a process that runs already, all or none, and records it as a guest. With `warn` it takes what is
 * free.
 * @throws {LockvisorError} `locked` with the holder's name; nothing is locked then
 */
export async function adoptGuest(
  { store, driver, enforce }: { store: GuestStore; driver: Driver; enforce?: Enforcement | undefined },
  { guest, process, hostId, plugin }: AdoptedGuest,
  resources: readonly ResolvedResource[],
): Promise<{ record: GuestRecord; conflicts: Conflict[] }> {
  const result = await driver.adopt(guest, process, resources);
  if (result.outcome === "refused" && enforce !== "warn") throw lockedError(result.refusal);
  const { granted: { carrier, leaseKeys, grants }, conflicts } = result.outcome === "granted"
    ? { granted: result, conflicts: [] }
    : await takeWhatIsFree(guest, resources, {
      refused: result.refusal,
      take: (free) => driver.adopt(guest, process, free),
    });
  const own = { ...process, kind: "guest", locks: [] } as const;
  const record: GuestRecord = {
    ...guest,
    plugin,
    state: "running",
    since: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
    hostId,
    carriers: carrier.locks.length === 0 ? [{ ...own, locks: [] }] : [{ ...own, locks: [] }, carrier],
    leaseKeys,
    resources: markUnprotected(
      resources.map((resource) => recordedResource(resource, driver.keysOf(resource))),
      conflicts,
    ),
    grants: grants ?? [],
    givenUp: [],
    command: commandLine(process.pid),
  };
  failpoint("adopt.carried");
  try {
    store.claim(record);
  } catch (error) {
    const keys = carrier.locks.map(({ key }) => key);
    await driver.unplug(runningGuest(record), keys);
    throw error;
  }
  return { record, conflicts };
}
