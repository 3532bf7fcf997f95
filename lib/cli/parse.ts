import { LockvisorError } from "../errors.ts";
import { type CommandDefinition, type OptionDefinition, SETTING_OPTIONS } from "./definition.ts";

/** What the user wrote, checked against a command's definition. */
export interface Invocation {
  options: OptionValues;
  arguments: string[];
  /** The words after `--`; empty where there are none. */
  userCommand: string[];
}

/** The values of the options that were given, by name. */
export class OptionValues {
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(values: ReadonlyMap<string, readonly string[]>) {
    this.#values = values;
  }

  /** The option's value, or undefined when it was not given. */
  text(name: string): string | undefined {
    return this.#values.get(name)?.at(-1);
  }

  /** Every value of an option that may be repeated. */
  texts(name: string): string[] {
    return [...this.#values.get(name) ?? []];
  }

  isGiven(name: string): boolean {
    return this.#values.has(name);
  }
}

/** What a whole command line asks for. */
export type Request =
  | { kind: "run"; command: CommandDefinition; invocation: Invocation }
  /** Of one command, of all whose names begin with the same word, or of the program. */
  | { kind: "help"; command: CommandDefinition | undefined; group?: readonly CommandDefinition[] }
  | { kind: "version" };

const HELP_OPTION: OptionDefinition = { name: "help", summary: "show this help" };

/**
 * Reads a command line. Settings may stand before the subcommand's name or after it.
 * @throws {LockvisorError} `usage`, naming the word that is wrong
 */
export function parseCommandLine(args: readonly string[], commands: readonly CommandDefinition[]): Request {
  const at = commandIndex(args);
  const first = args[at];
  const leading = args.slice(0, at);
  if (leading.includes("--version")) return { kind: "version" };
  if (first === undefined && (leading.includes("--help") || leading.includes("-h"))) {
    return { kind: "help", command: undefined };
  }
  if (first === undefined) throw new LockvisorError("usage", "which command? see: lockvisor --help");
  if (first === "help") {
    const [named, second] = args.slice(at + 1);
    if (named === undefined) return { kind: "help", command: undefined };
    const members = membersOf(named, commands);
    if (members.length === 0) return { kind: "help", command: commandNamed([named], commands) };
    return second === undefined
      ? { kind: "help", command: undefined, group: members }
      : { kind: "help", command: commandNamed([named, second], commands) };
  }
  const group = membersOf(first, commands);
  if (group.length > 0) {
    const second = args[at + 1];
    const isNamed = second !== undefined && !second.startsWith("-");
    const asked = isNamed ? [] : [...leading, second];
    if (asked.includes("--help") || asked.includes("-h")) return { kind: "help", command: undefined, group };
    if (!isNamed) throw whichOf(first, group);
  }
  const words = group.length > 0 ? 2 : 1;
  const command = commandNamed(args.slice(at, at + words), commands);
  const invocation = parseInvocation([...leading, ...args.slice(at + words)], command);
  return invocation === "help" ? { kind: "help", command } : { kind: "run", command, invocation };
}

/** The subcommand's name, whether there is such a command or not; undefined where none is given. */
export function commandName(args: readonly string[]): string | undefined {
  return args[commandIndex(args)];
}

/** The place of the subcommand's name: the first word that is neither a setting nor a setting's value. */
function commandIndex(args: readonly string[]): number {
  for (let index = 0; index < args.length; index++) {
    const word = args[index]!;
    if (!word.startsWith("-")) return index;
    if (SETTING_OPTIONS.some((option) => word === `--${option.name}`)) index++;
  }
  return args.length;
}

/** The commands of two words that begin with this one. */
function membersOf(first: string, commands: readonly CommandDefinition[]): CommandDefinition[] {
  return commands.filter(({ name }) => name.startsWith(`${first} `));
}

/** What tells a command of two words from those that begin with the same one. */
export function secondWord({ name }: Pick<CommandDefinition, "name">): string {
  return name.slice(name.indexOf(" ") + 1);
}

function whichOf(first: string, group: readonly CommandDefinition[]): LockvisorError {
  const members = group.map(secondWord).join(", ");
  return new LockvisorError("usage", `${first}: which of ${members}? see: lockvisor ${first} --help`);
}

function commandNamed(words: readonly string[], commands: readonly CommandDefinition[]): CommandDefinition {
  const name = words.join(" ");
  const command = commands.find((candidate) => candidate.name === name);
  if (command !== undefined && name.split(" ").length === words.length) return command;
  const group = membersOf(words[0]!, commands);
  if (group.length > 0) throw whichOf(words[0]!, group);
  throw new LockvisorError("usage", `there is no command "${name}"; see: lockvisor --help`);
}

/** Reads the words of one subcommand. */
export function parseInvocation(words: readonly string[], command: CommandDefinition): Invocation | "help" {
  const end = words.indexOf("--");
  const own = end < 0 ? words : words.slice(0, end);
  const userCommand = end < 0 ? [] : words.slice(end + 1);
  const definitions = [...command.options, ...SETTING_OPTIONS, HELP_OPTION];
  const tokens = tokensOf(own, definitions);
  if (tokens.some((token) => token.kind === "option" && token.name === "help")) return "help";
  const values = new Map<string, string[]>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const definition = definitions.find((candidate) => candidate.name === token.name);
    if (definition === undefined) throw wrong(command, `unknown option ${token.rawName}`);
    const value = checkedValue(command, definition, token);
    const earlier = values.get(token.name) ?? [];
    if (earlier.length > 0 && definition.occurs !== "repeatedly") {
      throw wrong(command, `${token.rawName} is given twice`);
    }
    values.set(token.name, [...earlier, value]);
  }
  if (userCommand.length > 0 && command.userCommand === undefined) positionals.push(...userCommand);
  checkArguments(command, positionals);
  return {
    options: new OptionValues(values),
    arguments: positionals,
    userCommand: command.userCommand === undefined ? [] : userCommand,
  };
}

type OptionToken = { kind: "option"; name: string; rawName: string; value?: string; inlineValue?: boolean };
type Token = OptionToken | { kind: "positional"; value: string };

/**
 * Splits words into options with their values and other words, as getopt_long(3) does without abbreviations. Our
 * own, since what the runtime offers (parseArgs of node:util) takes 20 ms to load there.
 */
function tokensOf(words: readonly string[], definitions: readonly OptionDefinition[]): Token[] {
  const tokens: Token[] = [];
  for (let index = 0; index < words.length; index++) {
    const word = words[index]!;
    if (!word.startsWith("-") || word === "-") {
      tokens.push({ kind: "positional", value: word });
      continue;
    }
    const equals = word.startsWith("--") ? word.indexOf("=") : -1;
    const rawName = word === "-h" ? "--help" : equals < 0 ? word : word.slice(0, equals);
    const token: OptionToken = { kind: "option", name: rawName.replace(/^--?/, ""), rawName };
    const definition = rawName.startsWith("--")
      ? definitions.find(({ name }) => name === token.name)
      : undefined;
    if (definition === undefined) token.name = rawName; // no option has such a name
    if (equals >= 0) {
      token.value = word.slice(equals + 1);
      token.inlineValue = true;
    } else if (definition?.value === "optional") {
      token.value = "";
    } else if (definition?.placeholder !== undefined && index + 1 < words.length) {
      token.value = words[++index]!;
    }
    tokens.push(token);
  }
  return tokens;
}

function checkedValue(command: CommandDefinition, definition: OptionDefinition, token: OptionToken): string {
  const { rawName, value, inlineValue } = token;
  if (definition.placeholder === undefined) {
    if (value !== undefined) throw wrong(command, `${rawName} takes no value`);
    return "";
  }
  if (value === undefined || (value === "" && definition.value !== "optional")) {
    throw wrong(command, `${rawName} needs a value: ${rawName} ${definition.placeholder}`);
  }
  if (value.startsWith("-") && value !== "-" && !inlineValue) {
    throw wrong(command, `${rawName} needs a value; one that begins with "-" is written ${rawName}=${value}`);
  }
  if (definition.choices !== undefined && !definition.choices.includes(value)) {
    throw wrong(command, `${rawName} "${value}" is none of: ${definition.choices.join(", ")}`);
  }
  return value;
}

function checkArguments(command: CommandDefinition, given: readonly string[]): void {
  const required = command.arguments.filter(({ presence }) => presence === "required").length;
  if (given.length < required) {
    throw wrong(command, `${command.arguments[given.length]!.name} is missing`);
  }
  const most = command.arguments.some(({ presence }) => presence === "repeated")
    ? Infinity
    : command.arguments.length;
  if (given.length > most) {
    const hint = command.userCommand === undefined ? "" : "; the guest's command follows after --";
    throw wrong(command, `unexpected argument "${given[most]}"${hint}`);
  }
}

function wrong(command: CommandDefinition, text: string): LockvisorError {
  return new LockvisorError("usage", `${command.name}: ${text}; see: lockvisor ${command.name} --help`);
}
