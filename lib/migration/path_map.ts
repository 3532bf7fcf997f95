import { LockvisorError } from "../errors.ts";

/** A path that has another name at the destination, with everything below it. Both absolute, neither ends with `/`. */
export interface PathMapping {
  from: string;
  to: string;
}

/**
 * Reads `OLD=NEW`, two absolute paths. The first `=` that a `/` follows parts them: a path may hold others.
 * @throws {LockvisorError} `usage`
 */
export function parsePathMapping(option: string, text: string): PathMapping {
  const parts = /^(\/.*?)=(\/.*)$/s.exec(text);
  const from = parts?.[1]?.replace(/\/+$/, "");
  const to = parts?.[2]?.replace(/\/+$/, "");
  if (from === undefined || to === undefined || text.includes("\0")) {
    throw new LockvisorError("usage", `${option} is "${text}"; it must be OLD=NEW, two absolute paths`);
  }
  if (from === "") {
    throw new LockvisorError("usage", `${option} is "${text}"; the root of all paths cannot be mapped`);
  }
  return { from, to };
}

/** The path's name at the destination. The longest mapping counts, once: what it gives is not mapped again. */
export function mapPath(path: string, mappings: readonly PathMapping[]): string {
  const [longest] = mappings
    .filter(({ from }) => path === from || path.startsWith(`${from}/`))
    .sort((one, other) => other.from.length - one.from.length);
  if (longest === undefined) return path;
  return `${longest.to}${path.slice(longest.from.length)}` || "/";
}

/**
 * A value of QEMU's in which a path may stand: the path itself, behind one or more prefixes (`unix:/run/a.sock`,
 * `nbd:unix:/run/a.sock:exportname=x`, `file:///a`), as the socket of a URI (`nbd+unix:///x?socket=/run/a.sock`), or in
 * JSON, behind `json:` or not. All but the paths stays as it is written.
 */
export function mapValue(text: string, mappings: readonly PathMapping[]): string {
  const json = /^(json:)?(?=\s*[{[])/.exec(text);
  if (json !== null) return json[0] + mapJson(text.slice(json[0].length), mappings);
  const prefixed = /^((?:[A-Za-z][A-Za-z0-9+.-]*:)*(?:\/\/(?=\/))?)(\/.*)$/s.exec(text);
  if (prefixed === null) return text;
  const [, prefix, path] = prefixed as unknown as [string, string, string];
  const query = /^(.*[?&]socket=)(\/[^&]*)(.*)$/s.exec(path);
  if (prefix.endsWith("//") && query !== null) {
    return prefix + query[1] + mapPath(query[2]!, mappings) + query[3];
  }
  const exported = prefix.endsWith("unix:") ? path.indexOf(":exportname=") : -1;
  const end = exported < 0 ? path.length : exported;
  return prefix + mapPath(path.slice(0, end), mappings) + path.slice(end);
}

/** Every text of a JSON value, one by one: numbers may be larger than JavaScript's are exact. */
function mapJson(text: string, mappings: readonly PathMapping[]): string {
  return text.replace(/"(?:[^"\\]|\\.)*"/gs, (literal) => {
    let value: unknown;
    try {
      value = JSON.parse(literal);
    } catch {
      return literal; // QEMU will say what is wrong with it
    }
    const mapped = mapValue(value as string, mappings);
    return mapped === value ? literal : JSON.stringify(mapped);
  });
}
