/**
 * SHA-256 and SHA-1 (FIPS 180-4), the one place where we write again what others offer, for the start of a guest:
 * loading node:crypto takes a program on Deno 2.9.6 some 40 ms, more than its whole start; @noble/hashes took
 * 3 ms of it, this takes under 1 ms; crypto.subtle answers only later. The tests hold it against crypto.subtle.
 */

/** The first bits of the fractions of the cube roots of the first 64 primes, as the standard defines them. */
const ROUND_CONSTANTS = primes(64).map((prime) => fractionBits(Math.cbrt(prime)));

/** The same of the square roots of the first 8 primes. */
const SHA256_START = primes(8).map((prime) => fractionBits(Math.sqrt(prime)));

const SHA1_START = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];

function primes(count: number): number[] {
  const found: number[] = [];
  for (let candidate = 2; found.length < count; candidate++) {
    if (found.every((prime) => candidate % prime !== 0)) found.push(candidate);
  }
  return found;
}

function fractionBits(root: number): number {
  return ((root - Math.floor(root)) * 2 ** 32) | 0;
}

/** SHA-256 of a text's UTF-8 form, as 64 lower-case hexadecimal digits. */
export function sha256Hex(text: string): string {
  const state = Int32Array.from(SHA256_START);
  const words = new Int32Array(64);
  const blocks = padded(new TextEncoder().encode(text));
  for (let offset = 0; offset < blocks.byteLength; offset += 64) addSha256Block(state, words, blocks, offset);
  return Array.from(state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

function addSha256Block(state: Int32Array, words: Int32Array, blocks: DataView, offset: number): void {
  for (let i = 0; i < 16; i++) words[i] = blocks.getInt32(offset + 4 * i);
  for (let i = 16; i < 64; i++) {
    const x = words[i - 15]!;
    const y = words[i - 2]!;
    const sigma0 = (x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ (x >>> 3);
    const sigma1 = (y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ (y >>> 10);
    words[i] = words[i - 16]! + sigma0 + words[i - 7]! + sigma1;
  }
  let [a, b, c, d, e, f, g, h] = state as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  for (let i = 0; i < 64; i++) {
    const sum1 = (e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7);
    const t1 = (h + sum1 + ((e & f) ^ (~e & g)) + ROUND_CONSTANTS[i]! + words[i]!) | 0;
    const sum0 = (a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10);
    const t2 = (sum0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, i) => state[i]! += word);
}

/** SHA-1 of bytes, 20 bytes. For UUIDs of version 5 only, which are made with it. */
export function sha1(bytes: Uint8Array): Uint8Array {
  const state = Int32Array.from(SHA1_START);
  const words = new Int32Array(80);
  const blocks = padded(bytes);
  for (let offset = 0; offset < blocks.byteLength; offset += 64) addSha1Block(state, words, blocks, offset);
  const digest = new DataView(new ArrayBuffer(20));
  state.forEach((word, i) => digest.setInt32(4 * i, word));
  return new Uint8Array(digest.buffer);
}

function addSha1Block(state: Int32Array, words: Int32Array, blocks: DataView, offset: number): void {
  for (let i = 0; i < 16; i++) words[i] = blocks.getInt32(offset + 4 * i);
  for (let i = 16; i < 80; i++) {
    const x = words[i - 3]! ^ words[i - 8]! ^ words[i - 14]! ^ words[i - 16]!;
    words[i] = x << 1 | x >>> 31;
  }
  let [a, b, c, d, e] = state as unknown as [number, number, number, number, number];
  for (let i = 0; i < 80; i++) {
    const [mixed, constant] = i < 20
      ? [(b & c) ^ (~b & d), 0x5a827999]
      : i < 40
      ? [b ^ c ^ d, 0x6ed9eba1]
      : i < 60
      ? [(b & c) ^ (b & d) ^ (c & d), 0x8f1bbcdc]
      : [b ^ c ^ d, 0xca62c1d6];
    const next = ((a << 5 | a >>> 27) + mixed + e + constant + words[i]!) | 0;
    [e, d, c, b, a] = [d, c, b << 30 | b >>> 2, a, next];
  }
  [a, b, c, d, e].forEach((word, i) => state[i]! += word);
}

/** The message, a one bit, zeros, and the length in bits at the end of the last block of 64 bytes. */
function padded(message: Uint8Array): DataView {
  const blocks = new Uint8Array(Math.ceil((message.length + 9) / 64) * 64);
  blocks.set(message);
  blocks[message.length] = 0x80;
  const view = new DataView(blocks.buffer);
  view.setUint32(blocks.length - 8, Math.floor(message.length / 2 ** 29));
  view.setUint32(blocks.length - 4, (message.length * 8) >>> 0);
  return view;
}
