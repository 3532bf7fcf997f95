import { type CommandDefinition, JSON_OPTION } from "./definition.ts";
import { reconcile } from "./reconcile.ts";

/** Makes locks follow what QEMU has open. */
export const RECONCILE_COMMAND: CommandDefinition = {
  name: "reconcile",
  summary:
    "make the locks of a running guest what its QEMU really has open, after block jobs and hotplugs by hand",
  arguments: [{ name: "GUEST", presence: "required" }],
  options: [{ name: "dry-run", summary: "say what would be done; do nothing" }, JSON_OPTION],
  details: [
    "QEMU is asked by its monitor, or, where that does not answer, the kernel by the descriptors of its process. What is open is locked, what is written is locked for writing. A disk that nobody has named by hand (--disk, acquire) is released when it is not open any more, and locked for reading only when it has become a backing file. What was named by hand is only locked more strongly.",
    "What somebody else has is told with its holder and shown by status as unprotected: 75; attach and the agent take its lock as soon as it is free. A guest that migrates, starts, or has given its locks up in a pause is left alone: 0, with a warning.",
  ],
  run: reconcile,
};
