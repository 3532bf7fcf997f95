import type { Driver, Guest, Hold, ResolvedResource } from "../driver/contract.ts";
import { failpoint } from "../failpoint.ts";
import { identifySelf } from "../process/process_identity.ts";
import { type GuestRecord, recordedResource } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { lockedError } from "./refusal.ts";

/** What becomes of a guest when somebody else has what it wants: it is refused, or goes without that lock. */
export type Enforcement = "refuse" | "warn";

/** What the start of a guest works with, and what is written down about it. */
export interface StartContext {
  store: GuestStore;
  driver: Driver;
  plugin: string;
  hostId: string;
  command: readonly string[];
}

/**
 * Takes all locks of a guest that is about to start in this process, or none, and writes its record. With `warn` it
 * takes what is free, and warns of what somebody else has.
 * @throws {LockvisorError} `locked` with the holder's name; nothing is left behind then
 */
export async function takeForStart(
  context: StartContext & { enforce: Enforcement; warn(line: string): void },
  guest: Guest,
  resources: readonly ResolvedResource[],
): Promise<StartedGuest> {
  const result = await context.driver.acquire(guest, resources);
  if (result.outcome === "granted") {
    return claimed(context, result.hold, recordOfStart(context, { guest, hold: result.hold }, resources));
  }
  if (context.enforce === "refuse") throw lockedError(result.refusal);
  const { conflictText, markUnprotected, takeWhatIsFree } = await import("./unprotected.ts");
  const { granted: { hold }, conflicts } = await takeWhatIsFree(guest, resources, {
    refused: result.refusal,
    take: (free) => context.driver.acquire(guest, free),
  });
  const record = recordOfStart(context, { guest, hold }, resources);
  const started = claimed(context, hold, {
    ...record,
    resources: markUnprotected(record.resources, conflicts),
  });
  for (const conflict of conflicts) context.warn(conflictText(guest, conflict, "starts"));
  return started;
}

/** A guest that is about to start in this process, with its locks. */
interface StartedGuest {
  hold: Hold;
  record: GuestRecord;
}

function claimed({ store }: StartContext, hold: Hold, record: GuestRecord): StartedGuest {
  try {
    store.claim(record);
    failpoint("run.recorded");
    return { hold, record };
  } catch (error) {
    hold.giveBack();
    throw error;
  }
}

/** The record of a guest that is about to start in this process. */
export function recordOfStart(
  { driver, plugin, hostId, command }: StartContext,
  { guest, hold }: { guest: Guest; hold: Hold },
  resources: readonly ResolvedResource[],
): GuestRecord {
  return {
    uuid: guest.uuid,
    name: guest.name,
    id: guest.id,
    plugin,
    state: "starting",
    since: `${new Date().toISOString().slice(0, 19)}Z`,
    hostId,
    carriers: [{ kind: "guest", ...identifySelf(), locks: hold.locks }],
    leaseKeys: hold.leaseKeys,
    resources: resources.map((resource) => recordedResource(resource, driver.keysOf(resource))),
    grants: hold.grants ?? [],
    givenUp: [],
    command: [...command],
    qmp: guest.qmp,
    onLockFailure: guest.onLockFailure,
  };
}
