import { processPause, processResume } from "../domain_lock.ts";
import { findLivingGuest } from "../manager/find_guest.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { pauseResult } from "../report/results.ts";
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
  const paused = await processPause(lock, record, locks);
  report(paused.record, { options, context, lockState: paused.state });
  return 0;
}

/** `lockvisor resume`: takes back what was given up, then lets the guest run on. */
export async function resume(
  { options, arguments: [name] }: Invocation,
  context: CliContext,
): Promise<number> {
  const { lock, record } = await openGuest(options, name!, context);
  const changes = options.isGiven("accept-changes") ? "accept" : "refuse";
  const resumed = await processResume(lock, record, { changes });
  report(resumed, { options, context, lockState: null });
  return 0;
}

async function openGuest(options: Invocation["options"], name: string, context: CliContext) {
  const session = await openSession(options, context);
  const record = findLivingGuest(session.store, name);
  return { lock: await session.domainLock(record), record };
}

/** The state of a guest, with what it gave up: libvirt's lock state, in JSON. */
function report(
  record: GuestRecord,
  { options, context, lockState }: {
    options: Invocation["options"];
    context: CliContext;
    lockState: string | null;
  },
) {
  if (options.isGiven("json")) {
    context.out(JSON.stringify(pauseResult(record, lockState)) + "\n");
    return;
  }
  const { name, state, givenUp } = record;
  const locks = givenUp.length === 0 ? "holds its locks" : `has given up ${givenUp.length} keys`;
  const lines = givenUp.map(({ key, mode, generation }) => `  ${key} ${mode}, generation ${generation}\n`);
  context.out(`guest "${name}" is ${state} and ${locks}\n` + lines.join(""));
}
