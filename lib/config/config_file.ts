import { type AST, ParseError, parseTOML } from "toml-eslint-parser";
import { LockvisorError } from "../errors.ts";
import type { Given } from "./values.ts";

/** The configuration file's values as written, each with its line; nothing but syntax, keys and types is checked. */
export interface RawConfig {
  values: Partial<Record<SettingKey, Given>>;
  storage: { path: Given; id: Given }[];
  /** The table `[agent]`. */
  agent: Partial<Record<AgentKey, Given>>;
}

/** Keys of the file with a text as value. */
export const SETTING_KEYS = [
  "lockspace",
  "runtime-dir",
  "host-id",
  "shared-storage",
  "readonly",
  "enforce",
] as const;
export type SettingKey = typeof SETTING_KEYS[number];

/** Keys of the table `[agent]`, each with a text as value. */
export const AGENT_KEYS = [
  "socket",
  "listen",
  "audit-interval",
  "reconcile-interval",
  "hooks",
  "hook-timeout",
] as const;
export type AgentKey = typeof AGENT_KEYS[number];

const TOP_KEYS: readonly string[] = [...SETTING_KEYS, "storage", "agent"];
const STORAGE_KEYS: readonly string[] = ["path", "id"];

/**
 * Reads the text of a configuration file (TOML 1.0). This module takes 10 ms to load, most of it the parser: it is for
 * those who have something in the file.
 *
 * @param file Its name, for messages.
 * @throws LockvisorError `config`, with file, line and key
 */
export function readConfig(text: string, file: string): RawConfig {
  const config: RawConfig = { values: {}, storage: [], agent: {} };
  for (const node of parseText(text, file).body[0].body) {
    const place = placeOf(node, file);
    const name = nameOf(node.key);
    if (!TOP_KEYS.includes(name.split(".")[0]!)) throw unknownKey(place, name, TOP_KEYS);
    if (node.type === "TOMLTable" && name === "agent" && node.kind === "standard") {
      Object.assign(config.agent, agentEntries(node.body, file));
    } else if (node.type === "TOMLTable") {
      if (node.kind !== "array" || name !== "storage") throw wrongTable(place, name);
      config.storage.push(storageEntry(node.body, place, file));
    } else if (name === "storage") config.storage.push(...inlineStorage(node, place, file));
    else if (isSettingKey(name)) config.values[name] = textOf(node, name, file);
    else throw wrongTable(place, name);
  }
  return config;
}

function parseText(text: string, file: string): AST.TOMLProgram {
  try {
    return parseTOML(text, { tomlVersion: "1.0" });
  } catch (error) {
    if (!(error instanceof ParseError)) throw error;
    // The parser reports a missing value only where the next line begins.
    const before = text.slice(0, error.index).trimEnd();
    const line = before.endsWith("=") ? before.split("\n").length : error.lineNumber;
    const place = `${file}:${line}`;
    throw new LockvisorError("config", `${place}: not valid TOML: ${lowerFirst(error.message)}`, {
      cause: error,
    });
  }
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

type Entry = AST.TOMLKeyValue | AST.TOMLTable;

function placeOf(node: { loc: AST.SourceLocation }, file: string): string {
  return `${file}:${node.loc.start.line}`;
}

/** The key as dotted text: `a.b` for `a.b = 1`. */
function nameOf(key: AST.TOMLKey): string {
  return key.keys.map((part) => part.type === "TOMLBare" ? part.name : part.value).join(".");
}

function isSettingKey(name: string): name is SettingKey {
  return (SETTING_KEYS as readonly string[]).includes(name);
}

function wrongTable(place: string, name: string): LockvisorError {
  const first = name.split(".")[0]!;
  const wanted = first === "storage"
    ? "tables, written as [[storage]]"
    : first === "agent"
    ? "a table, written as [agent]"
    : `a text, written as ${first} = "…"`;
  return new LockvisorError("config", `${place}: key "${name}" must be ${wanted}`);
}

function inlineStorage(node: AST.TOMLKeyValue, place: string, file: string): RawConfig["storage"] {
  if (node.value.type !== "TOMLArray") throw wrongTable(place, "storage");
  return node.value.elements.map((element) => {
    if (element.type !== "TOMLInlineTable") throw wrongTable(placeOf(element, file), "storage");
    return storageEntry(element.body, placeOf(element, file), file);
  });
}

function storageEntry(body: readonly Entry[], place: string, file: string): { path: Given; id: Given } {
  const found: Record<string, Given> = {};
  for (const node of body) {
    const name = nameOf(node.key);
    if (node.type === "TOMLTable" || !STORAGE_KEYS.includes(name)) {
      throw unknownKey(placeOf(node, file), name, STORAGE_KEYS, "storage.");
    }
    found[name] = textOf(node, `storage.${name}`, file);
  }
  const { path, id } = found;
  if (path === undefined || id === undefined) {
    const key = path === undefined ? "path" : "id";
    throw new LockvisorError("config", `${place}: [[storage]] has no "${key}"; it needs both path and id`);
  }
  return { path, id };
}

function agentEntries(body: readonly Entry[], file: string): RawConfig["agent"] {
  const found: RawConfig["agent"] = {};
  for (const node of body) {
    const name = nameOf(node.key);
    const key = AGENT_KEYS.find((known) => known === name);
    if (node.type === "TOMLTable" || key === undefined) {
      throw unknownKey(placeOf(node, file), name, AGENT_KEYS, "agent.");
    }
    found[key] = textOf(node, `agent.${name}`, file);
  }
  return found;
}

function textOf(node: AST.TOMLKeyValue, name: string, file: string): Given {
  const { value } = node;
  if (value.type !== "TOMLValue" || value.kind !== "string") {
    const kind = value.type === "TOMLValue" ? value.kind : value.type === "TOMLArray" ? "array" : "table";
    throw new LockvisorError(
      "config",
      `${placeOf(node, file)}: key "${name}" must be a text in quotes, not ${kind}`,
    );
  }
  return { text: value.value, origin: { kind: "file", name, file, line: node.loc.start.line } };
}

function unknownKey(place: string, name: string, known: readonly string[], prefix = ""): LockvisorError {
  const near = nearest(name.split(".")[0]!, known);
  const hint = near === undefined
    ? `the known keys are ${known.map((key) => prefix + key).join(", ")}`
    : `did you mean "${prefix}${near}"?`;
  return new LockvisorError("config", `${place}: unknown key "${prefix}${name}"; ${hint}`);
}

/** The known word that a mistyped one comes nearest to, if it is near: a third of its letters wrong at most. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const plain = (text: string) => text.toLowerCase().replaceAll(/[_-]/g, "");
  const ranked = known.map((candidate) => ({
    candidate,
    distance: editDistance(plain(word), plain(candidate)),
  }))
    .sort((one, other) => one.distance - other.distance);
  const best = ranked[0];
  return best !== undefined && best.distance <= Math.ceil(best.candidate.length / 3)
    ? best.candidate
    : undefined;
}

/** How many letters must be put in, taken out or replaced to make one word of the other (Levenshtein). */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = row[j - 1]! + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}
