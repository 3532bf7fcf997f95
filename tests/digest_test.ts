import assert from "node:assert/strict";
import fc from "fast-check";
import { sha1, sha256Hex } from "../lib/identity/digest.ts";

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function reference(algorithm: "SHA-256" | "SHA-1", bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return hex(new Uint8Array(await crypto.subtle.digest(algorithm, bytes)));
}

Deno.test("SHA-256 is what the runtime's own is, at every length around the block's end", async () => {
  for (let length = 0; length < 200; length++) {
    const text = "ä".repeat(length % 7) + "x".repeat(length);
    assert.equal(
      sha256Hex(text),
      await reference("SHA-256", new TextEncoder().encode(text)),
      `length ${length}`,
    );
  }
});

Deno.test("SHA-256 and SHA-1 are what the runtime's own are, for any text", async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: "grapheme", maxLength: 500 }), async (text) => {
      const bytes = new TextEncoder().encode(text);
      assert.equal(sha256Hex(text), await reference("SHA-256", bytes));
      assert.equal(hex(sha1(bytes)), await reference("SHA-1", bytes));
    }),
    { numRuns: 500 },
  );
});
