import { type CommandDefinition, type OptionDefinition, SETTING_OPTIONS } from "./definition.ts";

/** Columns of a help text. */
const WIDTH = 100;

/** What every exit status means, in the order of its number. */
export const EXIT_STATUSES: readonly (readonly [string, string])[] = [
  ["0", "done"],
  ["1", "the answer is no (check), a check failed (doctor)"],
  ["64", "wrong usage"],
  ["65", "bad data: a disk that is not there or is no disk, a damaged record, an unknown guest"],
  ["69", "a plugin or the agent is unavailable"],
  ["70", "internal error"],
  ["73", "something cannot be created"],
  ["74", "input/output error"],
  ["75", "locked by somebody else; try later"],
  ["77", "no permission"],
  ["78", "wrong configuration, lockspace missing"],
  ["126, 127", "the command cannot be executed, was not found"],
  ["130, 143", "run --wait was given up on SIGINT, SIGTERM; nothing is locked"],
  ["141", "whoever read our output has gone"],
];

/** The help of the whole program. */
export function programHelp(commands: readonly CommandDefinition[]): string {
  return [
    "Usage: lockvisor COMMAND [OPTION]... [-- CMD ARG...]",
    "",
    "Keeps two guests from opening the same disk: a lock manager for virtual-machine disks.",
    "",
    "Commands:",
    ...rows(commands.map(({ name, summary }) => [name, summary])),
    "",
    "Settings, for every command:",
    ...rows(SETTING_OPTIONS.map(optionRow)),
    "",
    "Exit status (run: the status of CMD, which takes our place):",
    ...rows(EXIT_STATUSES),
    "",
    "lockvisor COMMAND --help tells more about a command.",
    "",
  ].join("\n");
}

/** The help of several commands that begin with the same word. */
export function groupHelp(commands: readonly CommandDefinition[]): string {
  const first = commands[0]!.name.split(" ")[0]!;
  return [
    `Usage: lockvisor ${first} COMMAND [OPTION]...`,
    "",
    "Commands:",
    ...rows(commands.map(({ name, summary }) => [name, summary])),
    "",
    `lockvisor ${first} COMMAND --help tells more about a command.`,
    "",
  ].join("\n");
}

/** The help of one command. */
export function commandHelp(command: CommandDefinition): string {
  return [
    `Usage: ${usageOf(command)}`,
    "",
    ...wrap(`${command.summary[0]!.toUpperCase()}${command.summary.slice(1)}.`, ""),
    "",
    "Options:",
    ...rows([...command.options.map(optionRow), ["-h, --help", "show this help"]]),
    ...(command.details ?? []).flatMap((paragraph) => ["", ...wrap(paragraph, "")]),
    "",
    ...wrap(`Settings (--${SETTING_OPTIONS.map(({ name }) => name).join(", --")}): see lockvisor --help`, ""),
    "",
  ].join("\n");
}

/** One line that shows how a command is written. */
export function usageOf(command: CommandDefinition): string {
  const words = command.arguments.map(({ name, presence }) =>
    presence === "required" ? name : presence === "optional" ? `[${name}]` : `[${name}]...`
  );
  return ["lockvisor", command.name, "[OPTION]...", ...words, ...command.userCommand ? ["-- CMD ARG..."] : []]
    .join(" ");
}

function optionRow(option: OptionDefinition): readonly [string, string] {
  const notes = [
    option.choices === undefined ? undefined : option.choices.join(", "),
    option.default === undefined ? undefined : `default ${option.default}`,
    option.occurs === "repeatedly" ? "repeatable" : undefined,
  ].filter((note) => note !== undefined);
  return [optionUsage(option), option.summary + (notes.length > 0 ? ` (${notes.join("; ")})` : "")];
}

/** An option with its placeholder, as help and manual write it. */
export function optionUsage(option: OptionDefinition): string {
  if (option.placeholder === undefined) return `--${option.name}`;
  return option.value === "optional"
    ? `--${option.name}[=${option.placeholder}]`
    : `--${option.name} ${option.placeholder}`;
}

const LONGEST_LEFT_COLUMN = 26;

/** Two columns; a long left side gets a line of its own. */
function rows(pairs: readonly (readonly [string, string])[]): string[] {
  const column = Math.min(LONGEST_LEFT_COLUMN, Math.max(...pairs.map(([left]) => left.length))) + 4;
  return pairs.flatMap(([left, right]) => {
    const lines = wrap(right, " ".repeat(column));
    if (left.length + 4 > column) return [`  ${left}`, ...lines];
    return [`  ${left}`.padEnd(column) + lines[0]!.slice(column), ...lines.slice(1)];
  });
}

function wrap(text: string, indent: string): string[] {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(" ")) {
    if (line.length > indent.length && line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = indent;
    }
    line += (line.length > indent.length ? " " : "") + word;
  }
  return [...lines, line];
}
