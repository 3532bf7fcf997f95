import type { CommandDefinition } from "./definition.ts";
import { GUEST_OPTIONS, LOCK_FAILURE_OPTION } from "./guest_options.ts";
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
    ...GUEST_OPTIONS,
    { name: "qmp", placeholder: "PATH", summary: "the guest's QMP socket, for later operations" },
    LOCK_FAILURE_OPTION,
    {
      name: "wait",
      placeholder: "DURATION",
      value: "optional",
      summary: "wait for the locks: 500ms, 10s, 5m, 1h; without a duration for ever",
    },
    { name: "dry-run", summary: "say what would be locked and who has it; take nothing" },
    { name: "no-auto", summary: "do not read disks, name, UUID and QMP socket out of CMD if it is a QEMU" },
    { name: "force-command", summary: "run CMD although it is known to lose the locks" },
    { name: "json", summary: "print a refusal, or the dry run, as JSON" },
  ],
  details: [
    "The locks are in the guest's own process: they end with it, and only with it. All are taken or none; a refusal names the disk and its holder, and exits with 75.",
    "If CMD is a QEMU, its options tell which disks it opens, with their backing files, and which are readonly or shared; --disk adds to them, and its access counts. --name, --uuid and --qmp may be left out where QEMU's options have them.",
  ],
  run,
};
