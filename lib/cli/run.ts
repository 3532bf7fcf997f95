import type { OnLockFailure } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { parseDisk, parseLease } from "../identity/specification.ts";
import type { LockManager } from "../manager/lock_manager.ts";
import { loadPlugin } from "../manager/plugin.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { becomeCommand } from "../process/become.ts";
import { requireExecutable } from "../process/executable.ts";
import { launcherFault } from "../process/launcher.ts";
import { type CliContext, driverConfig } from "./context.ts";
import { type CommandDefinition, DISK_OPTION, LEASE_OPTION } from "./definition.ts";
import { parseDuration } from "./duration.ts";
import { formatForecasts } from "./forecast_text.ts";
import type { Invocation, OptionValues } from "./parse.ts";
import { openSession } from "./session.ts";
import { acquireWithin } from "./wait.ts";

/** `lockvisor run`: take every lock, then become the command. */
export const runCommand: CommandDefinition = {
  name: "run",
  summary: "take the locks of a guest, then become its command, which holds them until it ends",
  arguments: [],
  userCommand: "taken",
  options: [
    { name: "name", placeholder: "NAME", summary: "the guest's name, unique on this host; required" },
    { name: "uuid", placeholder: "UUID", summary: "the guest's UUID (default: made from the name)" },
    { name: "id", placeholder: "ID", summary: "an id of the management tool's own" },
    DISK_OPTION,
    LEASE_OPTION,
    { name: "plugin", placeholder: "NAME", default: DEFAULT_DRIVER, summary: "the driver" },
    { name: "qmp", placeholder: "PATH", summary: "the guest's QMP socket, for later operations" },
    {
      name: "on-lock-failure",
      placeholder: "ACTION",
      choices: ["pause", "kill", "ignore"],
      default: "pause",
      summary: "what becomes of the guest when a lock is lost for good",
    },
    {
      name: "wait",
      placeholder: "DURATION",
      value: "optional",
      summary: "wait for the locks: 500ms, 10s, 5m, 1h; without a duration for ever",
    },
    { name: "dry-run", summary: "say what would be locked and who has it; take nothing" },
    { name: "force-command", summary: "run CMD although it is known to lose the locks" },
    { name: "json", summary: "print a refusal, or the dry run, as JSON" },
  ],
  details: [
    "The locks are in the guest's own process: they end with it, and only with it. All are taken or none; a refusal names the disk and its holder, and exits with 75.",
  ],
  run,
};

async function run({ options, userCommand }: Invocation, context: CliContext): Promise<number> {
  const name = options.text("name");
  if (name === undefined) throw new LockvisorError("usage", "run: the guest needs a name; add --name NAME");
  const [program, ...args] = userCommand;
  if (program === undefined && !options.isGiven("dry-run")) {
    throw new LockvisorError("usage", "run: no command is given; add -- CMD ARG...");
  }
  const waitMs = options.isGiven("wait") ? parseDuration("--wait", options.text("wait")!) : 0;
  const resources = [...options.texts("disk").map(parseDisk), ...options.texts("lease").map(parseLease)];
  if (program !== undefined) refuseUnfitCommand([program, ...args], options, context);

  const { settings, store } = await openSession(options, context);
  const plugin = loadPlugin(options.text("plugin") ?? DEFAULT_DRIVER, driverConfig(context, settings));
  await using manager = plugin.newManager("domain", "start", {
    store,
    storage: settings.storage,
    cwd: context.cwd,
  });
  manager.setParameter("name", name);
  describeGuest(manager, options, userCommand);
  for (const { type, name, access } of resources) manager.registerResource(type, name, access);
  if (options.isGiven("dry-run")) {
    context.out(formatForecasts(manager.forecast(), options.isGiven("json") ? "json" : "text"));
    return 0;
  }
  await acquireWithin(manager, waitMs);
  manager.handOver();
  return becomeCommand([program!, ...args]);
}

/** Command line faults come before anything is locked. */
function refuseUnfitCommand(
  command: [string, ...string[]],
  options: OptionValues,
  context: CliContext,
): void {
  const fault = launcherFault(command);
  if (fault !== undefined && !options.isGiven("force-command")) {
    throw new LockvisorError(
      "usage",
      `run: ${fault.launcher} ${fault.reason}; ${fault.remedy} (or add --force-command)`,
    );
  }
  requireExecutable(command[0], context.environment("PATH"));
}

function describeGuest(manager: LockManager, options: OptionValues, command: string[]): void {
  const [uuid, id, qmp] = [options.text("uuid"), options.text("id"), options.text("qmp")];
  if (uuid !== undefined) manager.setParameter("uuid", uuid);
  if (id !== undefined) manager.setParameter("id", id);
  if (qmp !== undefined) manager.setParameter("qmp", qmp);
  const action = options.text("on-lock-failure");
  if (action !== undefined) manager.setParameter("on-lock-failure", action as OnLockFailure);
  manager.setParameter("command", command);
}
