import { parseDuration } from "../config/duration.ts";
import { parseHostUri } from "../config/host_uri.ts";
import { parseSize } from "../config/size.ts";
import {
  formatTicket,
  processCancelOut,
  processCompleteOut,
  processHoldAgain,
  processLetGo,
  processMigratePrepare,
} from "../domain_migration.ts";
import type { DomainLock } from "../domain_lock.ts";
import { LockvisorError, printable } from "../errors.ts";
import { findLivingGuest } from "../manager/find_guest.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { parseQemuOption } from "../migration/destination_command.ts";
import type { DepartureLocks, MovedGuest } from "../migration/move.ts";
import { moveGuest } from "../migration/move_guest.ts";
import { parsePathMapping } from "../migration/path_map.ts";
import { type MovePlan, planMove, requireMovable } from "../migration/plan_move.ts";
import { lookAtDevices } from "../migration/present_devices.ts";
import { shellWords } from "../migration/shell_words.ts";
import type { CliContext } from "./context.ts";
import { SETTING_OPTIONS } from "./definition.ts";
import { Interrupted } from "./interrupted.ts";
import { migrationReport } from "./migration_report.ts";
import type { Invocation, OptionValues } from "./parse.ts";
import { openSession } from "./session.ts";
import { abortOnSignals } from "./signals.ts";

/** `lockvisor migrate run`: moves a guest, with everything that belongs to it, in one command. */
export async function runMigration(
  { options, arguments: [name] }: Invocation,
  context: CliContext,
): Promise<number> {
  const wish = readWish(options);
  const session = await openSession(options, context);
  const record = findLivingGuest(session.store, name!);
  const plan = await planNow(record, wish);
  for (const warning of plan.warnings) context.note(`warning: ${warning}`);
  if (options.isGiven("dry-run")) {
    context.out(
      options.isGiven("json")
        ? JSON.stringify(planResult(record, wish.destination.text, plan)) + "\n"
        : planText(record, wish.destination.text, plan),
    );
    return 0;
  }
  const report = migrationReport({
    guest: record.name,
    destination: wish.destination.text,
    format: options.isGiven("json") ? "json" : "text",
    context,
  });
  const interruption = abortOnSignals((signal) =>
    new Interrupted(signal, `guest "${record.name}" stays here, with its locks`)
  );
  try {
    const moved = await moveGuest({
      guest: {
        uuid: record.uuid,
        name: record.name,
        plugin: record.plugin,
        pid: record.carriers[0].pid,
        qmp: record.qmp!,
        there: { command: plan.command, directory: plan.directory, qmp: plan.qmp, map: plan.map },
      },
      destination: wish.destination,
      own: { path: Deno.execPath(), settings: givenSettings(options) },
      locks: departureLocks(await session.domainLock(record), record, {
        destination: wish.destination.text,
        // Nothing is plugged in or unplugged between this look and the instant from which a guest that leaves refuses that.
        whilePlanned: (action) =>
          session.store.withPlugging(record.uuid, async () => {
            await requirePlanned(findLivingGuest(session.store, record.uuid, record.name), { wish, plan });
            return await action();
          }),
      }),
      limits: wish.limits,
      timeoutMs: wish.timeoutMs,
      signal: interruption.signal,
      watch: (event) => report.tell(event),
    });
    report.end();
    return outcome(record, { moved, destination: wish.destination.text }, options, context);
  } finally {
    report.end();
    interruption.end();
  }
}

/** Looks at the guest, and works out what it is to be at its destination. */
async function planNow(guest: GuestRecord, { destination, changes }: Wish): Promise<MovePlan> {
  const record = requireMovable(guest);
  return planMove(record, {
    directory: workingDirectory(record),
    destination: destination.uri,
    changes,
    present: await lookAtDevices(record),
  });
}

/**
 * @throws {LockvisorError} `locked` when the guest has other devices than when its migration was planned, or is not to be
 * looked at: nothing has been done then, and there is nothing to cancel but what is somebody else's
 */
async function requirePlanned(
  record: GuestRecord,
  { wish, plan }: { wish: Wish; plan: MovePlan },
): Promise<void> {
  let now: MovePlan;
  try {
    now = await planNow(record, wish);
  } catch (error) {
    if (!(error instanceof LockvisorError) || error.code === "data") throw error;
    throw new LockvisorError("locked", `guest "${record.name}" stays here: ${error.message}`, {
      cause: error,
    });
  }
  if (shellWords(now.command) === shellWords(plan.command)) return;
  throw new LockvisorError(
    "locked",
    `guest "${record.name}" has got, or given up, a disk since its migration was planned; run migrate run again`,
  );
}

type Wish = ReturnType<typeof readWish>;

/** Reads all options before anything is done. @throws {LockvisorError} `usage` */
function readWish(options: OptionValues) {
  const to = options.text("to");
  if (to === undefined) {
    throw new LockvisorError("usage", "migrate run: where to? add --to HOSTURI, such as ssh://hv2");
  }
  const duration = (name: string) => {
    const text = options.text(name);
    return text === undefined ? undefined : parseDuration(`--${name}`, text);
  };
  const bandwidth = options.text("bandwidth");
  return {
    destination: { text: to, uri: parseHostUri(to) },
    changes: {
      set: options.texts("set").map((text) => parseQemuOption("--set", text)),
      add: options.texts("add").map((text) => parseQemuOption("--add", text)),
      map: options.texts("map").map((text) => parsePathMapping("--map", text)),
    },
    limits: {
      bandwidth: bandwidth === undefined ? undefined : parseSize("--bandwidth", bandwidth),
      downtimeMs: downtime(duration("downtime-limit")),
      convergence: options.isGiven("auto-converge") ? "throttle" as const : "as-it-is" as const,
    },
    timeoutMs: duration("timeout") ?? Infinity,
  };
}

/** QEMU's longest, in milliseconds; qemu-qmp-ref, migrate-set-parameters. */
const LONGEST_DOWNTIME_MS = 2_000_000;

function downtime(ms: number | undefined): number | undefined {
  if (ms === undefined) return undefined;
  if (ms >= 1 && ms <= LONGEST_DOWNTIME_MS) return Math.round(ms);
  throw new LockvisorError("usage", "--downtime-limit must be from 1ms to 2000s");
}

function workingDirectory({ name, carriers: [{ pid }] }: GuestRecord): string {
  try {
    return Deno.readLinkSync(`/proc/${pid}/cwd`);
  } catch {
    throw new LockvisorError(
      "permission",
      `guest "${name}" (pid ${pid}) is not to be looked into; run this as its user, or as root`,
    );
  }
}

/** The settings that were given on the command line, for a destination on this host. */
function givenSettings(options: OptionValues): string[] {
  return SETTING_OPTIONS.flatMap(({ name }) => options.texts(name).map((value) => `--${name}=${value}`));
}

function departureLocks(
  lock: DomainLock,
  record: GuestRecord,
  { destination, whilePlanned }: {
    destination: string;
    whilePlanned: (action: () => Promise<string>) => Promise<string>;
  },
): DepartureLocks {
  return {
    prepare: () =>
      whilePlanned(async () =>
        formatTicket(await processMigratePrepare(lock, record, { destination, incomingGuest: "held" }))
      ),
    letGo: () => processLetGo(lock, record),
    holdAgain: () => processHoldAgain(lock, record),
    complete: () => processCompleteOut(lock, record),
    cancel: async () => void await processCancelOut(lock, record),
  };
}

function outcome(
  { uuid, name }: GuestRecord,
  { moved, destination }: { moved: MovedGuest; destination: string },
  options: OptionValues,
  context: CliContext,
): number {
  const { pid, locks, sent, handOverMs, stoodStillMs } = moved;
  const isComplete = locks.outcome === "complete";
  if (options.isGiven("json")) {
    context.out(
      JSON.stringify({
        event: "result",
        guest: { uuid, name, pid },
        destination,
        outcome: isComplete ? "completed" : "waiting",
        processors: sent.processors === "run" ? "running" : "stopped",
        tookMs: Math.round(sent.progress.elapsedMs),
        sentBytes: sent.progress.sentBytes,
        passes: sent.progress.iteration,
        stoodStillMs: stoodStillMs === undefined ? null : tenths(stoodStillMs),
        handOverMs: tenths(handOverMs),
      }) + "\n",
    );
  } else {
    const state = sent.processors === "run"
      ? `runs at ${destination}`
      : `is at ${destination}, and stopped as it was here`;
    const still = stoodStillMs === undefined ? "" : `; it stood still for ${stoodStillMs.toFixed(0)} ms`;
    context.out(printable(`guest "${name}" ${state} (pid ${pid})${still}`) + "\n");
  }
  if (isComplete) return 0;
  const who = locks.holders === "" ? "not known" : `with ${locks.holders}`;
  context.note(
    `guest "${name}" is safe at ${destination} with half of each lock; the other half is ${who}: run there: lockvisor migrate complete ${name}`,
  );
  return 75;
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}

function planText(
  record: GuestRecord,
  destination: string,
  { command, resources, plugged, unplugged }: MovePlan,
): string {
  const { name, carriers: [{ pid }] } = record;
  const lines = resources.map(({ resource: { type, name, access }, name: there }) =>
    printable(`  ${type} ${name} (${access})${there === name ? "" : `, there ${there}`}`)
  );
  return [
    printable(`guest "${name}" (pid ${pid}) would move to ${destination} with:`),
    ...lines.length === 0 ? ["  no disks or leases"] : lines,
    ...plugged.map((id) => printable(`added, since it was plugged in: "${id}"`)),
    ...unplugged.map((id) => printable(`left out, since it was unplugged: "${id}"`)),
    "its command there:",
    printable(shellWords(command)),
    "",
  ].join("\n");
}

function planResult(record: GuestRecord, destination: string, plan: MovePlan) {
  const { uuid, name, carriers: [{ pid }] } = record;
  return {
    guest: { uuid, name, pid },
    destination,
    command: plan.command,
    directory: plan.directory,
    qmp: plan.qmp,
    plugged: plan.plugged,
    unplugged: plan.unplugged,
    warnings: plan.warnings,
    resources: plan.resources.map(({ resource: { type, name, access }, name: there }) => ({
      type,
      name,
      access,
      there,
    })),
  };
}
