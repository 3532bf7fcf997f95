import type { ArgumentDefinition, OptionDefinition } from "./definition.ts";
import { SETTING_OPTIONS } from "./definition.ts";
import type { CommandDefinition } from "./definition.ts";

/**
 * What a shell offers in a place. `guests`: the names that `lockvisor status --names` prints. `anything`: these, and
 * files.
 */
export type Completion =
  | { kind: "words"; words: readonly string[] }
  | { kind: "guests" }
  | { kind: "files" }
  | { kind: "anything" }
  | { kind: "directories" }
  | { kind: "nothing" };

/** What is offered for an option's value; undefined for an option without one. */
export function completionOfOption({ placeholder, choices }: OptionDefinition): Completion | undefined {
  return placeholder === undefined ? undefined : completionOf(placeholder, choices);
}

/** What is offered for an argument. */
export function completionOfArgument({ name, choices }: ArgumentDefinition): Completion {
  return completionOf(name, choices);
}

/** The words that help texts use for a value tell what it is. */
function completionOf(placeholder: string, choices: readonly string[] | undefined): Completion {
  if (choices !== undefined) return { kind: "words", words: choices };
  if (/^GUEST\b/.test(placeholder)) return { kind: "guests" };
  if (/\|GUEST\b/.test(placeholder)) return { kind: "anything" };
  if (/^DIR\b/.test(placeholder)) return { kind: "directories" };
  if (/^(PATH|FILE|DISK|OVERLAY|TARGET)\b/.test(placeholder)) return { kind: "files" };
  return { kind: "nothing" };
}

/** Every option that a command takes, settings and help included. */
export function optionsOf(command: CommandDefinition | undefined): OptionDefinition[] {
  const help: OptionDefinition = { name: "help", summary: "show help" };
  const version: OptionDefinition = { name: "version", summary: "print the version" };
  return [...command?.options ?? [version], ...SETTING_OPTIONS, help];
}

/** The settings that change where guests are looked for; a script hands them on to `status --names`. */
export const PLACE_SETTINGS: readonly string[] = ["config", "lockspace", "runtime-dir", "host-id"];
