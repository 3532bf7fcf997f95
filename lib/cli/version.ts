import { VERSION } from "../version.ts";
import { type CommandDefinition, JSON_OPTION } from "./definition.ts";

/** `lockvisor version`: what this is and what it runs on. */
export const versionCommand: CommandDefinition = {
  name: "version",
  summary: "print the version",
  arguments: [],
  options: [JSON_OPTION],
  run({ options }, context) {
    const facts = { version: VERSION, deno: Deno.version.deno, target: Deno.build.target };
    context.out(
      options.isGiven("json")
        ? JSON.stringify(facts) + "\n"
        : `lockvisor ${facts.version} (deno ${facts.deno}, ${facts.target})\n`,
    );
    return 0;
  },
};
