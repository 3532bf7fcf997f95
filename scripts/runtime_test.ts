import assert from "node:assert/strict";
import { Failure } from "./failure.ts";
import { cutElf } from "./runtime.ts";

/** An ELF header whose table of two section headers, 64 bytes each, begins at 100: the file ends at 228. */
function program(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  bytes.set([0x7f, 0x45, 0x4c, 0x46]);
  const header = new DataView(bytes.buffer);
  header.setBigUint64(0x28, 100n, true);
  header.setUint16(0x3a, 64, true);
  header.setUint16(0x3c, 2, true);
  return bytes;
}

Deno.test("the runtime is cut off behind its section headers", () => {
  assert.equal(cutElf(program(1000)).length, 228);
  assert.equal(cutElf(program(228)).length, 228);
});

Deno.test("what is no whole ELF file is refused", () => {
  assert.throws(() => cutElf(program(227)), Failure);
  assert.throws(() => cutElf(new Uint8Array(1000)), Failure);
  assert.throws(() => cutElf(new Uint8Array(10)), Failure);
});
