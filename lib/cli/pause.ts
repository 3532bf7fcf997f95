import { pauseGuest, resumeGuest } from "../domain_lock.ts";
import { findLivingGuest } from "../manager/find_guest.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { hasMonitor, withMonitor } from "../manager/guest_monitor.ts";
import { sendSignal } from "../process/ending.ts";
import type { CliContext } from "./context.ts";
import type { Invocation } from "./parse.ts";
import { openSession } from "./session.ts";

/** `lockvisor pause`: a paused guest keeps its locks, unless it is told to give them up. */
export async function pause(
  { options, arguments: [name] }: Invocation,
  context: CliContext,
): Promise<number> {
  const { lock, record } = await openGuest(options, name!, context);
  const locks = options.isGiven("release") ? "released" : "kept";
  const paused = await pauseGuest(lock, record, { locks, stopProcessors: () => tellQemu(record, "stop") });
  report(paused, options, context);
  return 0;
}

/** `lockvisor resume`: takes back what was given up, then lets the guest run on. */
export async function resume(
  { options, arguments: [name] }: Invocation,
  context: CliContext,
): Promise<number> {
  const { lock, record } = await openGuest(options, name!, context);
  const changes = options.isGiven("accept-changes") ? "accept" : "refuse";
  const resumed = await resumeGuest(lock, record, {
    changes,
    startProcessors: () => tellQemu(record, "cont"),
  });
  report(resumed, options, context);
  return 0;
}

async function openGuest(options: Invocation["options"], name: string, context: CliContext) {
  const session = await openSession(options, context);
  const record = findLivingGuest(session.store, name);
  return { lock: session.domainLock(record), record };
}

/** Stops or continues the guest's processors where it has a QMP socket; elsewhere that is the caller's business. */
async function tellQemu(record: GuestRecord, command: "stop" | "cont"): Promise<void> {
  if (hasMonitor(record)) await withMonitor(record, {}, (monitor) => monitor.execute(command));
  // `attach --on-lost pause` has stopped a guest without a monitor by a signal; for one that runs this is nothing.
  else if (command === "cont") sendSignal(record.carriers[0], "SIGCONT");
}

/** The state of a guest, with what it gave up: libvirt's lock state, in JSON. */
function report(
  { uuid, name, state, givenUp }: GuestRecord,
  options: Invocation["options"],
  context: CliContext,
) {
  if (options.isGiven("json")) {
    context.out(JSON.stringify({ guest: { uuid, name, state }, givenUp }) + "\n");
    return;
  }
  const locks = givenUp.length === 0 ? "holds its locks" : `has given up ${givenUp.length} keys`;
  const lines = givenUp.map(({ key, mode, generation }) => `  ${key} ${mode}, generation ${generation}\n`);
  context.out(`guest "${name}" is ${state} and ${locks}\n` + lines.join(""));
}
