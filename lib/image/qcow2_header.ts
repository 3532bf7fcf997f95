import { LockvisorError } from "../errors.ts";

/** What the header of a qcow2 image tells about other files (QEMU's docs/interop/qcow2.txt). */
export interface Qcow2Header {
  version: number;
  backingFile: string | undefined;
  backingFormat: string | undefined;
  /** The name of the file that has the image's data, where that is another one and the header names it. */
  dataFile: string | undefined;
}

/** Gives `length` bytes of an image from `offset` on, fewer at its end. */
export type ReadBytes = (offset: number, length: number) => Uint8Array;

const MAGIC = 0x514649fb; // "QFI\xfb"
const VERSION_2_LENGTH = 72;
const VERSION_3_LENGTH = 104;
const SMALLEST_CLUSTER_BITS = 9;
const SMALLEST_CLUSTER = 2 ** SMALLEST_CLUSTER_BITS;
const LARGEST_CLUSTER_BITS = 21;
const LONGEST_BACKING_NAME = 1023;
const LONGEST_FORMAT_NAME = 15;
/** A path cannot be longer. */
const LONGEST_DATA_NAME = 4096;

const EXTENSION_END = 0;
const EXTENSION_BACKING_FORMAT = 0xe2792aca;
const EXTENSION_DATA_FILE = 0x44415441;
/** More than a header has; each is at least 8 bytes long. */
const MOST_EXTENSIONS = 1024;
const INCOMPATIBLE_DATA_FILE = 1 << 2;

/**
 * Reads the header of a qcow2 image with the checks of QEMU's `qcow2_do_open`. Nothing outside of the first cluster is
 * read, and of that only what is needed.
 * @param image its name, for messages
 * @throws {LockvisorError} `data` for what is no such header
 */
export function readQcow2Header(image: string, read: ReadBytes): Qcow2Header {
  const damaged = (why: string) =>
    new LockvisorError(
      "data",
      `disk ${image} is no proper qcow2 image: ${why}; look at it with qemu-img check`,
    );
  // No cluster is smaller, and what is wanted is nearly always in there.
  const beginning = read(0, SMALLEST_CLUSTER);
  const bytes = (offset: number, length: number, what: string): DataView => {
    const found = offset + length <= beginning.length
      ? beginning.subarray(offset, offset + length)
      : read(offset, length);
    if (found.length < length) throw damaged(`it ends within ${what}`);
    return new DataView(found.buffer, found.byteOffset, length);
  };
  const start = bytes(0, VERSION_2_LENGTH, "its header");
  if (start.getUint32(0) !== MAGIC) throw damaged("it does not begin as one");
  const version = start.getUint32(4);
  if (version !== 2 && version !== 3) throw damaged(`its version is ${version}; known are 2 and 3`);
  const clusterBits = start.getUint32(20);
  if (clusterBits < SMALLEST_CLUSTER_BITS || clusterBits > LARGEST_CLUSTER_BITS) {
    throw damaged(`its clusters have 2^${clusterBits} bytes`);
  }
  const clusterSize = 2 ** clusterBits;
  let headerLength = VERSION_2_LENGTH;
  let hasDataFile = false;
  if (version === 3) {
    const more = bytes(VERSION_2_LENGTH, VERSION_3_LENGTH - VERSION_2_LENGTH, "its header");
    hasDataFile = (more.getUint32(4) & INCOMPATIBLE_DATA_FILE) !== 0; // the lower half of 64 bits
    headerLength = more.getUint32(28);
    if (headerLength < VERSION_3_LENGTH || headerLength > clusterSize) {
      throw damaged(`its header is said to have ${headerLength} bytes`);
    }
  }
  const nameOffset = start.getUint32(8) * 2 ** 32 + start.getUint32(12);
  const nameLength = start.getUint32(16);
  if (nameOffset > clusterSize) throw damaged("the name of its backing file is not in its header");
  if (nameOffset > 0 && nameLength > Math.min(LONGEST_BACKING_NAME, clusterSize - nameOffset)) {
    throw damaged(`the name of its backing file is said to have ${nameLength} bytes`);
  }
  const text = (offset: number, length: number, what: string): string => {
    const { buffer, byteOffset } = bytes(offset, length, what);
    const raw = new Uint8Array(buffer, byteOffset, length);
    const end = raw.indexOf(0);
    const name = end < 0 ? raw : raw.subarray(0, end);
    if (name.every((byte) => byte < 0x80)) return String.fromCharCode(...name);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(name);
    } catch (error) {
      throw new LockvisorError("data", `disk ${image}: ${what} is not valid UTF-8; rename that file`, {
        cause: error,
      });
    }
  };

  const names = new Map<number, string>();
  const end = nameOffset > 0 ? nameOffset : clusterSize;
  for (let at = headerLength, count = 0; at < end; count++) {
    // Where nothing follows the header the image may end before its first cluster does.
    if (at + 8 > end || count > MOST_EXTENSIONS) throw damaged("its header extensions do not end");
    const extension = bytes(at, 8, "a header extension");
    const kind = extension.getUint32(0);
    const length = extension.getUint32(4);
    at += 8;
    if (kind === EXTENSION_END) break;
    if (length > end - at) throw damaged("a header extension is longer than its header");
    if (kind === EXTENSION_BACKING_FORMAT) {
      if (length > LONGEST_FORMAT_NAME) throw damaged("the name of its backing file's format is too long");
      names.set(kind, text(at, length, "the format of its backing file"));
    }
    if (kind === EXTENSION_DATA_FILE) {
      if (length > LONGEST_DATA_NAME) throw damaged("the name of its data file is too long");
      names.set(kind, text(at, length, "the name of its data file"));
    }
    at += Math.ceil(length / 8) * 8;
  }
  const known = (name: string | undefined) => name === "" ? undefined : name;
  return {
    version,
    backingFile: nameOffset === 0
      ? undefined
      : known(text(nameOffset, nameLength, "the name of its backing file")),
    backingFormat: known(names.get(EXTENSION_BACKING_FORMAT)),
    dataFile: hasDataFile ? known(names.get(EXTENSION_DATA_FILE)) : undefined,
  };
}
