import type { OnLockFailure } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import { parseDisk, parseLease } from "../identity/specification.ts";
import type { LockManager } from "../manager/lock_manager.ts";
import { loadPlugin } from "../manager/plugin.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { becomeCommand } from "../process/become.ts";
import { requireExecutable } from "../process/executable.ts";
import { launcherFault } from "../process/launcher.ts";
import { type CliContext, driverConfig } from "./context.ts";
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

  const { settings, store } = await openSession(options, context);
  const plugin = loadPlugin(options.text("plugin") ?? DEFAULT_DRIVER, driverConfig(context, settings));
  const manager = plugin.newManager("domain", "start", { store, storage: settings.storage });
  try {
    manager.setParameter("name", name);
    describeGuest(manager, options, userCommand);
    for (const { type, name, access } of resources) manager.registerResource(type, name, access);
    if (options.isGiven("dry-run")) {
      const { formatForecasts } = await import("./unhurried.ts");
      context.out(formatForecasts(manager.forecast(), options.isGiven("json") ? "json" : "text"));
      return 0;
    }
    if (waitMs === 0) await manager.acquireObject();
    else await (await import("./unhurried.ts")).acquireWithin(manager, waitMs);
    manager.handOver();
    return becomeCommand([program!, ...args]);
  } finally {
    manager.free();
  }
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

function describeGuest(manager: LockManager, options: OptionValues, command: string[]): void {
  const [uuid, id, qmp] = [options.text("uuid"), options.text("id"), options.text("qmp")];
  if (uuid !== undefined) manager.setParameter("uuid", uuid);
  if (id !== undefined) manager.setParameter("id", id);
  if (qmp !== undefined) manager.setParameter("qmp", absolutePath(qmp));
  const action = options.text("on-lock-failure");
  if (action !== undefined) manager.setParameter("on-lock-failure", action as OnLockFailure);
  manager.setParameter("command", command);
}
