/** One `name=value` of an option; both as QEMU sees them, doubled commas undone. */
export type Parameter = readonly [name: string, value: string];

/** The parameters of one option in their order: QEMU's `QemuOpts`. */
export class Parameters {
  readonly #list: Parameter[];

  constructor(list: readonly Parameter[]) {
    this.#list = [...list];
  }

  /** The value that counts: of several with the same name the last. */
  get(name: string): string | undefined {
    return this.#list.findLast(([each]) => each === name)?.[1];
  }

  /** The first value: QEMU takes an `id` from there. */
  first(name: string): string | undefined {
    return this.#list.find(([each]) => each === name)?.[1];
  }

  set(name: string, value: string): void {
    this.#list.push([name, value]);
  }

  /** All of them, later ones in place of earlier ones with the same name. */
  entries(): Map<string, string> {
    return new Map(this.#list);
  }
}

/**
 * Reads an option as QEMU's `qemu_opts_parse` does: `name=value` at single commas, a doubled comma in a value for one
 * that belongs to it. A word without `=` is a flag that is on, or off where it begins with `no`; the first may stand for
 * the value of `impliedName`.
 */
export function parseParameters(text: string, impliedName?: string): Parameters {
  const list: Parameter[] = [];
  for (let at = 0; at < text.length;) {
    const nameEnd = endOfName(text, at);
    const implied = list.length === 0 && at === 0 ? impliedName : undefined;
    if (text[nameEnd] === "=" || implied !== undefined) {
      const hasName = text[nameEnd] === "=";
      const { value, end } = readValue(text, hasName ? nameEnd + 1 : at);
      list.push([hasName ? text.slice(at, nameEnd) : implied!, value]);
      at = end + 1;
    } else {
      const flag = text.slice(at, nameEnd);
      list.push(flag.startsWith("no") ? [flag.slice(2), "off"] : [flag, "on"]);
      at = nameEnd + 1;
    }
  }
  return new Parameters(list);
}

/**
 * Reads an option as QEMU's `keyval_parse` does, which knows no flags.
 * @returns the parameters, or what is wrong
 */
export function parseKeyValues(text: string, impliedName: string): Parameters | string {
  const list: Parameter[] = [];
  for (let at = 0; at < text.length;) {
    const nameEnd = endOfName(text, at);
    if (text[nameEnd] !== "=" && at > 0) return `"${text.slice(at, nameEnd)}" has no value`;
    const hasName = text[nameEnd] === "=";
    const { value, end } = readValue(text, hasName ? nameEnd + 1 : at);
    list.push([hasName ? text.slice(at, nameEnd) : impliedName, value]);
    at = end + 1;
  }
  return new Parameters(list);
}

/** A value as it stands in an option: commas doubled. */
export function formatValue(value: string): string {
  return value.replaceAll(",", ",,");
}

/** What QEMU takes for yes and no (`qapi_bool_parse`); undefined for anything else. */
export function switchOf(text: string): boolean | undefined {
  if (["on", "yes", "true", "y"].includes(text)) return true;
  return ["off", "no", "false", "n"].includes(text) ? false : undefined;
}

function endOfName(text: string, from: number): number {
  for (let at = from; at < text.length; at++) if (text[at] === "=" || text[at] === ",") return at;
  return text.length;
}

/** A value up to a single comma; `end` is that comma, or the text's end. */
function readValue(text: string, from: number): { value: string; end: number } {
  let value = "";
  for (let at = from;;) {
    const comma = text.indexOf(",", at);
    if (comma < 0) return { value: value + text.slice(at), end: text.length };
    value += text.slice(at, comma);
    if (text[comma + 1] !== ",") return { value, end: comma };
    value += ",";
    at = comma + 2;
  }
}
