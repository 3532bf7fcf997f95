import { fileError } from "../errors.ts";
import { isPresent } from "./presence.ts";

/** What stands where a small JSON file of ours should be. `damaged` says in words what is wrong with it. */
export type RecordFile =
  | { kind: "absent" }
  | { kind: "json"; value: unknown }
  | { kind: "damaged"; reason: string };

/** No record of ours comes near this size, in bytes; what does was not written by us. */
const LARGEST_RECORD = 8 * 1024 * 1024;

/**
 * Reads a small JSON file without following a link and without blocking on a FIFO.
 * @throws {LockvisorError} `permission` or `io` when the file is there and cannot be read
 */
export function readRecordFile(path: string): RecordFile {
  if (!isPresent(path)) return { kind: "absent" };
  try {
    const status = Deno.lstatSync(path);
    if (status.isSymlink) return { kind: "damaged", reason: "it is a symbolic link" };
    if (!status.isFile) return { kind: "damaged", reason: "it is not a regular file" };
    if (status.size > LARGEST_RECORD) return { kind: "damaged", reason: `it has ${status.size} bytes` };
    return { kind: "json", value: JSON.parse(readStrictly(path)) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { kind: "absent" };
    if (error instanceof SyntaxError) return { kind: "damaged", reason: "it is not complete JSON" };
    if (error instanceof TypeError) return { kind: "damaged", reason: "it is not UTF-8 text" };
    throw fileError(`read ${path}`, error);
  }
}

/**
 * The text of a file. @throws {TypeError} for one that is not UTF-8, in whose place the runtime's own reading puts
 * U+FFFD; a decoder, which takes a start 0.3 ms to make, need only tell whether that character is in the file itself.
 */
function readStrictly(path: string): string {
  const text = Deno.readTextFileSync(path);
  if (!text.includes("\ufffd")) return text;
  return new TextDecoder("utf-8", { fatal: true }).decode(Deno.readFileSync(path));
}

/** A status of the file itself, links not followed, or undefined when there is none. */
export function lstatIfPresent(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw fileError(`look at ${path}`, error);
  }
}
