import type { Invocation } from "./parse.ts";
import { exitStatusOf, printable } from "../errors.ts";
import { tidyHost } from "../host_lock.ts";
import type { TidyReport } from "../manager/tidy_lockspace.ts";
import type { CliContext } from "./context.ts";
import { openSession } from "./session.ts";

/** `lockvisor gc`: remove what nobody needs any more from the lockspace. */
export async function run({ options }: Invocation, context: CliContext): Promise<number> {
  const action = options.isGiven("dry-run") ? "list" : "remove";
  const { lockspace, ...garbage } = tidyHost(await openSession(options, context), action);
  for (const problem of garbage.problems) context.note(`warning: ${problem}`);
  context.out(
    options.isGiven("json")
      ? JSON.stringify({ lockspace, dryRun: action === "list", ...garbage }) + "\n"
      : formatGarbage(garbage, action),
  );
  return garbage.problems.length === 0 ? 0 : exitStatusOf("data");
}

function formatGarbage({ removed, inUse }: Omit<TidyReport, "lockspace">, action: "remove" | "list"): string {
  const verb = action === "list" ? "would remove" : "removed";
  const files = `${removed.length} ${removed.length === 1 ? "file" : "files"}`;
  const keys = `${inUse} ${inUse === 1 ? "key" : "keys"} in use`;
  return [...removed.map((path) => `${verb} ${printable(path)}`), `${verb} ${files}; ${keys}`].join("\n") +
    "\n";
}
