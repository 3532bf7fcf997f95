import { processForecast, processStart } from "../domain_lock.ts";
import type { OnLockFailure } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import { parseDisk, parseLease } from "../identity/specification.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { requireExecutable } from "../process/executable.ts";
import { launcherFault } from "../process/launcher.ts";
import type { CliContext } from "./context.ts";
import { parseDuration } from "./duration.ts";
import type { Invocation, OptionValues } from "./parse.ts";
import { openSession } from "./session.ts";

/** `lockvisor run`: take every lock, then become the command. */
export async function run({ options, userCommand }: Invocation, context: CliContext): Promise<number> {
  const name = options.text("name");
  if (name === undefined) throw new LockvisorError("usage", "run: the guest needs a name; add --name NAME");
  const [program, ...args] = userCommand;
  if (program === undefined && !options.isGiven("dry-run")) {
    throw new LockvisorError("usage", "run: no command is given; add -- CMD ARG...");
  }
  const waitMs = options.isGiven("wait") ? parseDuration("--wait", options.text("wait")!) : 0;
  const resources = [...options.texts("disk").map(parseDisk), ...options.texts("lease").map(parseLease)];
  if (program !== undefined) refuseUnfitCommand([program, ...args], options);

  const session = await openSession(options, context);
  const lock = await session.domainLock({ plugin: options.text("plugin") ?? DEFAULT_DRIVER });
  const guest = { ...describeGuest(options, name), resources };
  if (options.isGiven("dry-run")) {
    const { formatForecasts } = await import("./run_later.ts");
    const forecasts = processForecast(lock, { ...guest, command: userCommand });
    context.out(formatForecasts(forecasts, options.isGiven("json") ? "json" : "text"));
    return 0;
  }
  return await processStart(lock, { ...guest, command: [program!, ...args] }, async (attempt) => {
    if (waitMs === 0) await attempt();
    else await (await import("./run_later.ts")).acquireWithin(attempt, waitMs);
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

function describeGuest(options: OptionValues, name: string) {
  const qmp = options.text("qmp");
  return {
    name,
    uuid: options.text("uuid"),
    id: options.text("id"),
    qmp: qmp === undefined ? undefined : absolutePath(qmp),
    onLockFailure: options.text("on-lock-failure") as OnLockFailure | undefined,
  };
}
