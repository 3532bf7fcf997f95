/** The value of a flattened option; null is JSON's, as in `"backing": null`. */
export type FlatValue = string | null;

/**
 * Reads a JSON object as QEMU does, and flattens it as its `qdict_flatten`: what is in objects and lists gets names with
 * dots (`file.filename`, `children.0`), switches are `on` and `off`.
 * @returns the options, or what is wrong
 */
export function readJsonOptions(text: string): Map<string, FlatValue> | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    try {
      value = JSON.parse(withDoubleQuotes(text));
    } catch {
      return "it is not JSON";
    }
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return "it is not a JSON object";
  const flat = new Map<string, FlatValue>();
  flatten(value, "", flat);
  return flat;
}

function flatten(value: object, prefix: string, into: Map<string, FlatValue>): void {
  for (const [name, each] of Object.entries(value)) {
    const path = `${prefix}${name}`;
    if (typeof each === "object" && each !== null) flatten(each, `${path}.`, into);
    else {into.set(
        path,
        each === null ? null : typeof each === "boolean" ? (each ? "on" : "off") : String(each),
      );}
  }
}

/** QEMU's JSON has strings in single quotes as well. */
function withDoubleQuotes(text: string): string {
  return text.replace(/"(?:[^"\\]|\\.)*"|'((?:[^'\\]|\\.)*)'/gs, (whole, inside: string | undefined) => {
    if (inside === undefined) return whole;
    return `"${inside.replace(/\\'/g, "'").replace(/(?<!\\)((?:\\\\)*)"/g, '$1\\"')}"`;
  });
}
