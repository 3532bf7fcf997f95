import type { Known } from "../driver/contract.ts";
import { processStop } from "../domain_lock.ts";
import { LockvisorError, printable } from "../errors.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { keysOfGuest } from "../manager/left_over_locks.ts";
import type { Plugin } from "../manager/plugin.ts";
import type { StopOutcome } from "../manager/stop_guest.ts";
import { stopPlan, type StopStep } from "../manager/stop_plan.ts";
import type { CliContext } from "./context.ts";
import { parseDuration } from "./duration.ts";
import type { Invocation, OptionValues } from "./parse.ts";
import { findKnownGuest } from "./past_guest.ts";
import { openSession, type Session } from "./session.ts";

/** What `stop` has done, for its output. */
interface Stopped {
  guest: { uuid: string; name: string | null; pid: number | null };
  outcome: StopOutcome;
  tookMs: number;
  locks: { total: number; held: Exclude<Known, true> };
}

/** `lockvisor stop`: ends a guest, then proves with the kernel that its locks are free. */
export async function stop(
  { options, arguments: [guest] }: Invocation,
  context: CliContext,
): Promise<number> {
  const stepsFor = readWish(options, context);
  const session = await openSession(options, context);
  const known = await findKnownGuest(session, guest!);
  const stopped = known.kind === "recorded"
    ? await stopRecorded(session, known.record, { steps: stepsFor(known.record), context })
    : stoppedBefore(known.uuid);
  context.out(options.isGiven("json") ? stoppedJson(stopped) : stoppedText(stopped, guest!));
  return 0;
}

/** Reads the options before anything is done; the steps depend on the guest. */
function readWish(options: OptionValues, context: CliContext): (record: GuestRecord) => StopStep[] {
  const timeoutMs = parseDuration("--timeout", options.text("timeout") ?? "30s");
  const killAfterMs = parseDuration("--kill-after", options.text("kill-after") ?? "10s");
  const manner = options.isGiven("powerdown") ? "power-down" : "quit";
  return (record) => {
    const monitor = record.qmp === null ? "absent" : "present";
    if (manner === "power-down" && monitor === "absent") {
      context.note(`warning: guest "${record.name}" has no QMP socket; it gets SIGTERM instead`);
    }
    return stopPlan({ monitor, manner, timeoutMs, killAfterMs });
  };
}

async function stopRecorded(
  session: Session,
  record: GuestRecord,
  { steps, context }: { steps: readonly StopStep[]; context: CliContext },
): Promise<Stopped> {
  const begun = performance.now();
  const { outcome, held } = await processStop(
    { plugin: await findPlugin(session, record.plugin, context), options: { store: session.store } },
    record,
    { steps, warn: (line) => context.note(`warning: ${printable(line)}`) },
  );
  const { uuid, name, carriers: [{ pid }] } = record;
  const tookMs = Math.round(performance.now() - begun);
  return { guest: { uuid, name, pid }, outcome, tookMs, locks: { total: keysOfGuest(record).length, held } };
}

/** The plugin, or undefined where it is not to be had: a guest can be stopped all the same. */
async function findPlugin(
  { plugins }: Session,
  name: string,
  context: CliContext,
): Promise<Plugin | undefined> {
  try {
    return await plugins.load(name);
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    context.note(`warning: ${error.message}`);
    return undefined;
  }
}

/** A guest that has no record any more, and whose lease on itself is free. */
function stoppedBefore(uuid: string): Stopped {
  const locks = { total: 0, held: false } as const;
  return { guest: { uuid, name: null, pid: null }, outcome: { kind: "before" }, tookMs: 0, locks };
}

function stoppedJson({ guest, outcome, tookMs, locks }: Stopped): string {
  const facts = outcome.kind === "by"
    ? { outcome: "stopped", by: outcome.means }
    : { outcome: "already-stopped", by: null };
  return JSON.stringify({ guest, ...facts, tookMs, locks }) + "\n";
}

function stoppedText({ guest, outcome, tookMs, locks }: Stopped, asked: string): string {
  const who = `guest "${guest.name ?? asked}"`;
  const how = outcome.kind === "before"
    ? "has stopped already"
    : `has stopped (by ${outcome.means}, after ${(tookMs / 1000).toFixed(1)} s)`;
  return printable(`${who} ${how}${locksText(locks)}`) + "\n";
}

function locksText({ total, held }: Stopped["locks"]): string {
  if (total === 0) return "";
  return held === false
    ? `; its ${total} locks are free`
    : `; whether its ${total} locks are free cannot be known from here`;
}
