import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { type CommandDefinition, DISK_OPTION, LEASE_OPTION } from "./definition.ts";
import { run } from "./run.ts";

/**
 * The definition of `run`, apart from those of all other commands: the start of a guest shall not wait until they are
 * read.
 */
export const RUN_COMMAND: CommandDefinition = {
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
    {
      name: "plugin",
      placeholder: "NAME",
      default: DEFAULT_DRIVER,
      summary: "the driver; with a / in it the path of its module",
    },
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
