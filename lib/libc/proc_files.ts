import { LIBC } from "./syscall.ts";

let library: ReturnType<typeof open> | undefined;

/**
 * Calls for reading many small files of /proc: the runtime's own cost ten times as much, since each makes a path, a
 * promise-less operation and objects of its own. Results fit into 32 bits.
 */
function open() {
  return Deno.dlopen(LIBC, {
    openat: { parameters: ["i32", "buffer", "i32"], result: "i32" },
    read: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    readlinkat: { parameters: ["i32", "buffer", "buffer", "u32"], result: "i32" },
    getdents64: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  }).symbols;
}

function symbols() {
  return library ??= open();
}

const AT_FDCWD = -100;
const O_RDONLY = 0;
const O_CLOEXEC = 0o2000000;

const encoder = new TextEncoder();
/** Where paths are put for a call; PATH_MAX. */
const path = new Uint8Array(4096);

/** Names in /proc are mostly short and ASCII, for which a loop is faster than the encoder. */
function terminated(text: string): Uint8Array<ArrayBuffer> {
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code > 0x7f || at > SHORT) return encoded(text);
    path[at] = code;
  }
  path[text.length] = 0;
  return path;
}

const SHORT = 64;

function encoded(text: string): Uint8Array<ArrayBuffer> {
  const { written } = encoder.encodeInto(text, path);
  path[written] = 0;
  return path;
}

/** Opens a file or directory for reading, beside another that is open, or by its whole path; -1 when it cannot be. */
export function openForReading(name: string, directory: number = AT_FDCWD): number {
  return symbols().openat(directory, terminated(name), O_RDONLY | O_CLOEXEC);
}

/** Closes what {@linkcode openForReading} has opened. */
export function closeFile(descriptor: number): void {
  symbols().close(descriptor);
}

/** What one read(2) gives, into the buffer; the number of bytes, or -1. */
export function readInto(descriptor: number, buffer: Uint8Array<ArrayBuffer>): number {
  return symbols().read(descriptor, buffer, buffer.length);
}

/** Where a link leads, into the buffer; readlinkat(2). The number of bytes, or -1. */
export function readLinkInto(name: string, directory: number, buffer: Uint8Array<ArrayBuffer>): number {
  return symbols().readlinkat(directory, terminated(name), buffer, buffer.length);
}

const listing = new Uint8Array(65536);
const listed = new DataView(listing.buffer);
/** One character for each byte, so that a whole listing is made text at once; names beyond ASCII are read again. */
const bytewise = new TextDecoder("latin1");
const decoder = new TextDecoder();
const BEYOND_ASCII = /[^\0-\x7f]/;

/** Where in struct linux_dirent64 the length of the entry and its name are; getdents(2). */
const LENGTH_AT = 16;
const NAME_AT = 19;

/** Calls for each entry of a directory that is open, with its name, and its inode as the directory has it. */
export function eachEntry(directory: number, entry: (name: string, inode: number) => void): void {
  while (true) {
    const bytes = symbols().getdents64(directory, listing, listing.length);
    if (bytes <= 0) return;
    const text = bytewise.decode(listing.subarray(0, bytes));
    const found: [string, number][] = [];
    for (let at = 0; at < bytes;) {
      const end = text.indexOf("\0", at + NAME_AT);
      const inode = listed.getUint32(at, true) + listed.getUint32(at + 4, true) * 2 ** 32;
      const plain = text.slice(at + NAME_AT, end);
      const name = BEYOND_ASCII.test(plain) ? decoder.decode(listing.subarray(at + NAME_AT, end)) : plain;
      if (name !== "." && name !== "..") found.push([name, inode]);
      at += listed.getUint16(at + LENGTH_AT, true);
    }
    for (const [name, inode] of found) entry(name, inode); // may list another directory into the same bytes
  }
}
