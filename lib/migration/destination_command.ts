import { LockvisorError } from "../errors.ts";
import { mapPath, mapValue, type PathMapping } from "./path_map.ts";
import {
  type CommandWord,
  isPathAlone,
  readCommand,
  takesValue,
  valueParts,
  writeCommand,
} from "./qemu_options.ts";

/** One of QEMU's options as it is to be at the destination; without a value where it takes none. */
export interface QemuOption {
  name: string;
  value: string | undefined;
}

/** How the destination's command differs from the source's. */
export interface CommandChanges {
  /** Each in place of all options of its name. */
  set: readonly QemuOption[];
  /** Each in addition to what is there. */
  add: readonly QemuOption[];
  map: readonly PathMapping[];
  /** The value of `-incoming`; `defer`: QEMU is told through its monitor. */
  incoming: string;
}

/**
 * Reads `OPTION[=VALUE]`, one of QEMU's options without its dash.
 * @throws {LockvisorError} `usage`
 */
export function parseQemuOption(option: string, text: string): QemuOption {
  const parts = /^-{0,2}([A-Za-z0-9][A-Za-z0-9-]*)(?:=(.*))?$/s.exec(text);
  if (parts === null) {
    throw new LockvisorError(
      "usage",
      `${option} is "${text}"; it must be OPTION[=VALUE], an option of QEMU's`,
    );
  }
  const [, name, value] = parts;
  if (OURS.has(name!)) {
    throw new LockvisorError("usage", `${option}: -${name} is not yours to give: a migration needs its own`);
  }
  if (takesValue(name!) === (value === undefined)) {
    const wanted = value === undefined ? `needs a value: ${option} ${name}=VALUE` : "takes no value";
    throw new LockvisorError("usage", `${option}: QEMU's option -${name} ${wanted}`);
  }
  return { name: name!, value };
}

/** What the destination has in a form of its own: it waits for a guest, and is in the background already. */
const OURS = new Set(["incoming", "S", "daemonize"]);

/**
 * The command that a guest's QEMU is to be started with at the destination, from the one that it runs with here. It
 * waits for the guest (`-incoming`), and once that has come, for being told to run (`-S`).
 */
export function destinationCommand(
  command: readonly string[],
  { set, add, map, incoming }: CommandChanges,
): string[] {
  const kept = readCommand(command).filter((each) => each.kind === "other" || !OURS.has(each.name));
  const words = set.reduce<CommandWord[]>(replaceAll, kept.map((each) => mapWord(each, map)));
  words.push(...add.map(optionWord));
  words.push(optionWord({ name: "incoming", value: incoming }), optionWord({ name: "S", value: undefined }));
  return writeCommand(words);
}

/** The option in the place of the first of its name; the others go. Where there is none, at the end. */
function replaceAll(words: CommandWord[], option: QemuOption): CommandWord[] {
  const isSame = (each: CommandWord) => each.kind === "option" && each.name === option.name;
  const first = words.findIndex(isSame);
  if (first < 0) return [...words, optionWord(option)];
  return words.flatMap((each, index) => index === first ? [optionWord(option)] : isSame(each) ? [] : [each]);
}

function optionWord({ name, value }: QemuOption): CommandWord {
  return { kind: "option", word: `-${name}`, name, value };
}

function mapWord(each: CommandWord, map: readonly PathMapping[]): CommandWord {
  if (each.kind === "other") return { kind: "other", word: mapValue(each.word, map) };
  if (each.value === undefined) return each;
  const value = isPathAlone(each.name) ? mapPath(each.value, map) : mapParts(each.value, map);
  return { ...each, value };
}

/** The value of an option, which is JSON, or parts with commas between them. */
function mapParts(text: string, map: readonly PathMapping[]): string {
  if (/^\s*\{/.test(text)) return mapValue(text, map);
  return valueParts(text).map((part) => {
    const mapped = mapValue(part.value, map);
    return mapped === part.value ? part.text : part.key + mapped.replaceAll(",", ",,");
  }).join(",");
}
