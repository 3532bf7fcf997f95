import type { Invocation } from "./parse.ts";
import type { CliContext } from "./context.ts";
import { printable } from "../errors.ts";
import { makeLockspace } from "../host_lock.ts";
import { absolutePath } from "../identity/absolute_path.ts";

/** `lockvisor init`: make a lockspace. */
export function run({ options, arguments: [directory] }: Invocation, context: CliContext): number {
  const { outcome, path, id } = makeLockspace(absolutePath(directory!), context.effectiveUid);
  if (options.isGiven("json")) context.out(JSON.stringify({ lockspace: path, id, outcome }) + "\n");
  else if (outcome === "created") context.out(printable(`made the lockspace ${path} (id ${id})`) + "\n");
  else context.out(printable(`${path} is a lockspace already (id ${id}); nothing changed`) + "\n");
  return 0;
}
