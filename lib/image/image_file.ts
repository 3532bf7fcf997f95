import { fileError, LockvisorError } from "../errors.ts";
import type { ReadBytes } from "./qcow2_header.ts";

/** An image that is open for reading. */
export interface OpenImage {
  /** The same for the same file under every name. */
  identity: string;
  read: ReadBytes;
}

/**
 * Opens an image while `use` works with it. Only regular files and block devices are opened: a named pipe would block.
 * @throws {LockvisorError} `data` or `permission`, naming the image
 */
export function withImage<Result>(path: string, use: (image: OpenImage) => Result): Result {
  const status = attempt(path, () => Deno.statSync(path));
  if (!status.isFile && !status.isBlockDevice) {
    throw new LockvisorError("data", `disk ${path} is neither a regular file nor a block device`);
  }
  const file = attempt(path, () => Deno.openSync(path, { read: true }));
  try {
    return use({
      identity: status.isFile ? `file ${status.dev} ${status.ino}` : `device ${status.rdev}`,
      read: (offset, length) => attempt(path, () => readAt(file, offset, length)),
    });
  } finally {
    file.close();
  }
}

function readAt(file: Deno.FsFile, offset: number, length: number): Uint8Array {
  const buffer = new Uint8Array(length);
  file.seekSync(offset, Deno.SeekMode.Start);
  let filled = 0;
  while (filled < length) {
    const count = file.readSync(buffer.subarray(filled));
    if (count === null || count === 0) break;
    filled += count;
  }
  return buffer.subarray(0, filled);
}

function attempt<Result>(path: string, action: () => Result): Result {
  try {
    return action();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new LockvisorError("data", `disk ${path} does not exist`, { cause: error });
    }
    throw fileError(`read the header of disk ${path}`, error);
  }
}
