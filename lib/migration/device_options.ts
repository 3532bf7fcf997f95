import { type FlatValue, readJsonOptions } from "../qemu/json_options.ts";
import { formatValue, parseParameters, switchOf } from "../qemu/option_string.ts";
import type { CommandWord } from "./qemu_options.ts";

/** An option of QEMU's with its value. */
export type OptionWord = Extract<CommandWord, { kind: "option" }>;

/** What an option's value states, JSON or not; what is nested has names with dots. */
export function statedIn(value: string | undefined): ReadonlyMap<string, FlatValue> {
  if (value === undefined) return new Map();
  if (!isJson(value)) return parseParameters(value, "driver").entries();
  const options = readJsonOptions(value);
  return typeof options === "string" ? new Map() : options; // QEMU says what is wrong with it
}

/** Whether an option's value is JSON: QEMU makes the devices of those after all others. */
export function isJson(value: string): boolean {
  return /^\s*\{/.test(value);
}

/** The same option with more in it, all the rest as it is written. */
export function withMore(
  word: OptionWord,
  more: readonly (readonly [string, string | number])[],
): OptionWord {
  const { value = "" } = word;
  if (more.length === 0) return word;
  if (!isJson(value)) {
    return {
      ...word,
      value: [value, ...more.map(([name, each]) => `${name}=${formatValue(String(each))}`)].join(","),
    };
  }
  const members = more.map(([name, each]) => `${JSON.stringify(name)}:${JSON.stringify(each)},`).join("");
  return { ...word, value: value.replace("{", () => `{${members}`) };
}

/** What belongs to an object of JSON. */
export type Members = readonly (readonly [name: string, literal: string])[];

/** JSON of its members. */
export function jsonObject(members: Members): string {
  return `{${members.map(([name, literal]) => `${JSON.stringify(name)}:${literal}`).join(",")}}`;
}

/**
 * A device's option as JSON of the type that QEMU has for it. `device_add` takes texts for all of them, and `-device` with
 * JSON does not.
 * @param type as `device-list-properties` tells it
 */
export function typedLiteral(value: unknown, type: string | undefined): string {
  if (type === undefined || (typeof value === "object" && value !== null)) return JSON.stringify(value);
  const text = typeof value === "boolean" ? (value ? "on" : "off") : String(value);
  if (type === "bool") return JSON.stringify(switchOf(text) ?? text);
  if (!/^(u?int\d*|size\d*)$/.test(type)) return JSON.stringify(text);
  const number = /^(-?)(0x[0-9a-f]+|\d+)([kmgt]?)$/i.exec(text);
  if (number === null) return JSON.stringify(text);
  const [, sign, digits, unit] = number as unknown as [string, string, string, string];
  // Larger than what JavaScript's numbers keep exactly: a disk's wwn, say.
  return `${sign}${BigInt(digits) << BigInt(10 * (" kmgt".indexOf(unit.toLowerCase() || " ")))}`;
}
