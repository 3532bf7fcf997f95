import { printable } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import { initLockspace } from "../lockspace/lockspace.ts";
import { type CommandDefinition, JSON_OPTION } from "./definition.ts";

/** `lockvisor init`: make a lockspace. */
export const initCommand: CommandDefinition = {
  name: "init",
  summary: "make a lockspace: the directory in which the lock files live",
  arguments: [{ name: "DIR", presence: "required" }],
  options: [JSON_OPTION],
  details: [
    "DIR is new or empty; on storage that hosts share, the lockspace serves all of them. Again on the same: nothing changes.",
  ],
  run({ options, arguments: [directory] }, context) {
    const { outcome, lockspace } = initLockspace(absolutePath(directory!, context.cwd), context.effectiveUid);
    const { path, id } = lockspace;
    if (options.isGiven("json")) context.out(JSON.stringify({ lockspace: path, id, outcome }) + "\n");
    else if (outcome === "created") context.out(printable(`made the lockspace ${path} (id ${id})`) + "\n");
    else context.out(printable(`${path} is a lockspace already (id ${id}); nothing changed`) + "\n");
    return 0;
  },
};
