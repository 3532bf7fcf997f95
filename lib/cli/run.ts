import { processForecast, processStart } from "../domain_lock.ts";
import { LockvisorError } from "../errors.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { requireExecutable } from "../process/executable.ts";
import { launcherFault } from "../process/launcher.ts";
import { findQemu } from "../qemu/program.ts";
import type { CliContext } from "./context.ts";
import { parseDuration } from "../config/duration.ts";
import { readGuest } from "./guest_options.ts";
import type { Invocation, OptionValues } from "./parse.ts";
import { openSession } from "./session.ts";

/** `lockvisor run`: take every lock, then become the command. */
export async function run({ options, userCommand }: Invocation, context: CliContext): Promise<number> {
  const qemu = options.isGiven("no-auto")
    ? undefined
    : findQemu(userCommand, () => context.environment("PATH"));
  const ofQemu = qemu === undefined ? undefined : await import("./run_qemu.ts");
  const start = await ofQemu?.understand(qemu!, context);
  const guest = readGuest("run", options, start?.understood);
  const [program, ...args] = userCommand;
  if (program === undefined && !options.isGiven("dry-run")) {
    throw new LockvisorError("usage", "run: no command is given; add -- CMD ARG...");
  }
  const waitMs = options.isGiven("wait") ? parseDuration("--wait", options.text("wait")!) : 0;
  if (program !== undefined) refuseUnfitCommand([program, ...args], options);

  const session = await openSession(options, context);
  if (start !== undefined) {
    guest.resources = ofQemu!.resourcesOfQemu(session, guest.resources, start.understood);
  }
  const lock = await session.domainLock({ plugin: options.text("plugin") ?? DEFAULT_DRIVER });
  if (options.isGiven("dry-run")) {
    const { formatForecasts } = await import("./run_later.ts");
    const forecasts = processForecast(lock, { ...guest, command: userCommand });
    context.out(formatForecasts(forecasts, options.isGiven("json") ? "json" : "text", start?.understood));
    return 0;
  }
  return await processStart(lock, { ...guest, command: [program!, ...args] }, async (attempt) => {
    if (waitMs === 0) await attempt();
    else await (await import("./run_later.ts")).acquireWithin(attempt, waitMs, session.settings.enforce);
    await start?.confirm();
  });
}

/** Command line faults come before anything is locked. */
function refuseUnfitCommand(command: [string, ...string[]], options: OptionValues): void {
  const fault = launcherFault(command);
  if (fault !== undefined && !options.isGiven("force-command")) {
    throw new LockvisorError(
      "usage",
      `run: ${fault.launcher} ${fault.reason}; ${fault.remedy} (or add --force-command)`,
    );
  }
  requireExecutable(command[0]);
}
