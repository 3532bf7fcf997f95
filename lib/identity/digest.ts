import { sha1 as sha1Digest } from "@noble/hashes/legacy.js";
import { sha256 as sha256Digest } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";

// Not node:crypto: loading it takes a program on Deno 2.9.6 some 40 ms, more than its whole start. Not
// crypto.subtle: it answers later, and identities are wanted now.

/** SHA-256 of a text's UTF-8 form, as 64 lower-case hexadecimal digits. */
export function sha256Hex(text: string): string {
  return bytesToHex(sha256Digest(utf8ToBytes(text)));
}

/** SHA-1 of bytes, 20 bytes. For UUIDs of version 5 only, which are made with it. */
export function sha1(bytes: Uint8Array): Uint8Array {
  return sha1Digest(bytes);
}
