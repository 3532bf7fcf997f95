import type { Known } from "./driver/contract.ts";
import { processStop } from "./domain_lock.ts";
import { LockvisorError } from "./errors.ts";
import type { HostSession } from "./host_session.ts";
import { keysOfGuest } from "./manager/left_over_locks.ts";
import type { GuestRecord } from "./manager/guest_record.ts";
import type { Plugin } from "./manager/plugin.ts";
import type { StopOutcome } from "./manager/stop_guest.ts";
import { stopPlan, type StopStep, type StopWish } from "./manager/stop_plan.ts";
import { findKnownGuest } from "./past_guest.ts";

/** What a stop has done. */
export interface StoppedGuest {
  guest: { uuid: string; name: string | null; pid: number | null };
  outcome: StopOutcome;
  tookMs: number;
  locks: { total: number; held: Exclude<Known, true> };
}

/** How a guest is to be stopped: what it has itself, its monitor, is not wished for. */
export type StopManner = Omit<StopWish, "monitor">;

/**
 * Ends a guest by its name or UUID, then proves with the kernel that its locks are free. One that has stopped already
 * is no failure.
 * @param warn called with one line for each attempt that failed
 * @throws {LockvisorError} `data` when nothing tells that it has run; `locked` when it does not end, or when a process
 * that inherited its locks still has them
 */
export async function stopKnownGuest(
  session: HostSession,
  nameOrUuid: string,
  { manner, warn }: { manner: StopManner; warn: (line: string) => void },
): Promise<StoppedGuest> {
  const known = await findKnownGuest(session, nameOrUuid);
  if (known.kind === "past") return stoppedBefore(known.uuid);
  const { record } = known;
  const monitor = record.qmp === null ? "absent" : "present";
  if (manner.manner === "power-down" && monitor === "absent") {
    warn(`guest "${record.name}" has no QMP socket; it gets SIGTERM instead`);
  }
  return await stopRecorded(session, record, { steps: stopPlan({ ...manner, monitor }), warn });
}

async function stopRecorded(
  session: HostSession,
  record: GuestRecord,
  { steps, warn }: { steps: readonly StopStep[]; warn: (line: string) => void },
): Promise<StoppedGuest> {
  const begun = performance.now();
  const { outcome, held } = await processStop(
    { plugin: await findPlugin(session, record.plugin, warn), options: { store: session.store } },
    record,
    { steps, warn },
  );
  const { uuid, name, carriers: [{ pid }] } = record;
  const tookMs = Math.round(performance.now() - begun);
  return { guest: { uuid, name, pid }, outcome, tookMs, locks: { total: keysOfGuest(record).length, held } };
}

/** The plugin, or undefined where it is not to be had: a guest can be stopped all the same. */
async function findPlugin(
  { plugins }: HostSession,
  name: string,
  warn: (line: string) => void,
): Promise<Plugin | undefined> {
  try {
    return await plugins.load(name);
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    warn(error.message);
    return undefined;
  }
}

/** A guest that has no record any more, and whose lease on itself is free. */
function stoppedBefore(uuid: string): StoppedGuest {
  const locks = { total: 0, held: false } as const;
  return { guest: { uuid, name: null, pid: null }, outcome: { kind: "before" }, tookMs: 0, locks };
}
