import { closeFile, eachEntry, openForReading, readLinkInto } from "../libc/proc_files.ts";

const link = new Uint8Array(4096);
const encoder = new TextEncoder();

/**
 * A number that stands for the files that a process has open, by descriptor and name: another one when it has opened or
 * closed some, or one was renamed. It costs a few microseconds for each descriptor. Undefined when we may not look, or the
 * process has ended.
 * @param except a directory whose files do not count, by its path without links
 */
export function printOfOpenFiles(pid: number, except: string): number | undefined {
  const directory = openForReading(`/proc/${pid}/fd`);
  if (directory < 0) return undefined;
  const passedOver = encoder.encode(`${except}/`);
  let [high, low] = [FIRST, FIRST];
  let isHidden = false;
  try {
    eachEntry(directory, (number) => {
      const length = readLinkInto(number, directory, link);
      if (length < 0) isHidden = true; // it was closed meanwhile, or may not be seen: whoever looks again will tell
      if (length <= 0 || link[0] !== SLASH || beginsWith(link, passedOver, length)) return;
      high = mixed(high, Number(number));
      low = mixed(low, ~Number(number));
      for (let at = 0; at < length; at++) {
        high = mixed(high, link[at]!);
        low = mixed(low, link[length - 1 - at]!);
      }
    });
  } finally {
    closeFile(directory);
  }
  return isHidden ? undefined : (high >>> 0) * 2 ** 21 + (low >>> 11);
}

const SLASH = 0x2f;

/** FNV-1a (draft-eastlake-fnv): good enough to tell one list of names from the next one. */
const FIRST = 0x811c9dc5;
const PRIME = 0x01000193;

function mixed(print: number, value: number): number {
  return Math.imul(print ^ value, PRIME);
}

function beginsWith(bytes: Uint8Array, prefix: Uint8Array, length: number): boolean {
  if (length < prefix.length) return false;
  for (let at = 0; at < prefix.length; at++) if (bytes[at] !== prefix[at]) return false;
  return true;
}
