import type { Invocation } from "./parse.ts";
import type { CliContext } from "./context.ts";
import { VERSION } from "../version.ts";

/** `lockvisor version`: what this is and what it runs on. */
export function run({ options }: Invocation, context: CliContext): number {
  const facts = { version: VERSION, deno: Deno.version.deno, target: Deno.build.target };
  context.out(
    options.isGiven("json")
      ? JSON.stringify(facts) + "\n"
      : `lockvisor ${facts.version} (deno ${facts.deno}, ${facts.target})\n`,
  );
  return 0;
}
