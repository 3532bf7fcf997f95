import assert from "node:assert/strict";
import fc from "fast-check";
import { LockvisorError } from "../lib/errors.ts";
import { type Qcow2Header, readQcow2Header } from "../lib/image/qcow2_header.ts";
import { must } from "./support/qemu_images.ts";

/** The header of an image that is all in memory, and the furthest byte that was looked at. */
function headerOf(image: Uint8Array): { header: Qcow2Header; furthest: number } {
  let furthest = 0;
  const header = readQcow2Header("/x", (offset, length) => {
    assert.ok(Number.isSafeInteger(offset) && offset >= 0 && length >= 0);
    furthest = Math.max(furthest, offset + length);
    return image.slice(offset, offset + length);
  });
  return { header, furthest };
}

interface Parts {
  version?: number;
  clusterBits?: number;
  backing?: { offset?: number; length?: number; name?: string };
  incompatible?: bigint;
  headerLength?: number;
  extensions?: [kind: number, text: string, length?: number][];
  size?: number;
}

/** An image's first cluster, made by hand. */
function image(
  { version = 3, clusterBits = 16, backing, incompatible = 0n, headerLength, extensions = [], size = 65536 }:
    Parts,
): Uint8Array {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x514649fb);
  view.setUint32(4, version);
  view.setUint32(20, clusterBits);
  let at = version === 2 ? 72 : headerLength ?? 112;
  if (version !== 2) {
    view.setBigUint64(72, incompatible);
    view.setUint32(100, at);
  }
  at = Math.min(at, 1000);
  for (const [kind, text, length] of extensions) {
    const encoded = new TextEncoder().encode(text);
    view.setUint32(at, kind);
    view.setUint32(at + 4, length ?? encoded.length);
    bytes.set(encoded, at + 8);
    at += 8 + Math.ceil(encoded.length / 8) * 8;
  }
  if (backing !== undefined) {
    const name = new TextEncoder().encode(backing.name ?? "");
    const offset = backing.offset ?? at + 8;
    view.setBigUint64(8, BigInt(offset));
    view.setUint32(16, backing.length ?? name.length);
    if (offset + name.length <= size) bytes.set(name, offset);
  }
  return bytes;
}

const FORMAT = 0xe2792aca;
const DATA = 0x44415441;
const DATA_FILE = 4n;

const READ: [string, Parts, Partial<Qcow2Header>][] = [
  ["plain", {}, { version: 3, backingFile: undefined, backingFormat: undefined, dataFile: undefined }],
  ["version 2", { version: 2, backing: { name: "b" } }, { version: 2, backingFile: "b" }],
  ["backing", { backing: { name: "ü/b,c" }, extensions: [[FORMAT, "qcow2"]] }, {
    backingFile: "ü/b,c",
    backingFormat: "qcow2",
  }],
  ["no format", { backing: { name: "b" } }, { backingFile: "b", backingFormat: undefined }],
  ["empty format", { backing: { name: "b" }, extensions: [[FORMAT, ""]] }, { backingFormat: undefined }],
  ["empty name", { backing: { name: "", length: 0 } }, { backingFile: undefined }],
  ["name with a NUL", { backing: { name: "b\0c" } }, { backingFile: "b" }],
  ["data file", { incompatible: DATA_FILE, extensions: [[DATA, "d.raw"]] }, { dataFile: "d.raw" }],
  ["data file that is switched off", { extensions: [[DATA, "d.raw"]] }, { dataFile: undefined }],
  ["data file without a name", { incompatible: DATA_FILE }, { dataFile: undefined }],
  ["unknown extensions", { extensions: [[0x12345678, "???"], [FORMAT, "raw"]], backing: { name: "b" } }, {
    backingFormat: "raw",
  }],
  ["longest name", { backing: { name: "n".repeat(1023) } }, { backingFile: "n".repeat(1023) }],
  ["small clusters", { clusterBits: 9, size: 512, backing: { name: "b" } }, { backingFile: "b" }],
];

Deno.test("a qcow2 header tells the image's other files", () => {
  for (const [what, parts, expected] of READ) {
    const { header, furthest } = headerOf(image(parts));
    for (const [field, value] of Object.entries(expected)) {
      assert.equal(header[field as keyof Qcow2Header], value, `${what}: ${field}`);
    }
    assert.ok(furthest <= 65536, what);
  }
});

const REFUSED: [string, Parts, RegExp][] = [
  ["short", { size: 2000, clusterBits: 16, extensions: [[1, "x", 1900]] }, /ends within a header extension/],
  ["version", { version: 4 }, /its version is 4/],
  ["clusters", { clusterBits: 22 }, /2\^22 bytes/],
  ["clusters", { clusterBits: 8 }, /2\^8 bytes/],
  ["header length", { headerLength: 103 }, /103 bytes/],
  ["header length", { headerLength: 70000 }, /70000 bytes/],
  ["name outside", { backing: { offset: 65537, length: 1 } }, /not in its header/],
  ["name far outside", { backing: { offset: 2 ** 52, length: 1 } }, /not in its header/],
  ["long name", { backing: { name: "n".repeat(1024) } }, /1024 bytes/],
  ["name over the end", { backing: { offset: 65530, length: 100 } }, /100 bytes/],
  ["long format", { extensions: [[FORMAT, "x".repeat(16)]], backing: { name: "b" } }, /format is too long/],
  ["long extension", { extensions: [[1, "x", 0xffffffff]] }, /longer than its header/],
  ["extension over the end", { extensions: [[1, "x", 65500]] }, /longer than its header/],
  ["long data file", { incompatible: DATA_FILE, extensions: [[DATA, "x", 5000]] }, /data file is too long/],
];

Deno.test("a damaged qcow2 header is refused in one line", () => {
  for (const [what, parts, says] of REFUSED) {
    assert.throws(() => headerOf(image(parts)), (error) => {
      assert.ok(error instanceof LockvisorError, `${what}: ${error}`);
      assert.equal(error.code, "data");
      assert.match(error.message, says, what);
      return true;
    });
  }
  assert.throws(() => headerOf(new Uint8Array(10)), /ends within its header/);
  assert.throws(() => headerOf(new Uint8Array(65536)), /does not begin as one/);
  const wrong = image({ backing: { name: "b" } });
  wrong[wrong.indexOf("b".charCodeAt(0), 112)] = 0xff;
  assert.throws(() => headerOf(wrong), /not valid UTF-8/);
});

Deno.test("headers that qemu-img has written are read as qemu-img reads them", async () => {
  const directory = await Deno.makeTempDir();
  try {
    for (const compat of ["0.10", "1.1"]) {
      for (const cluster of ["512", "65536", "2097152"]) {
        for (const name of ["b", `${"long/".repeat(30)}b`, "json:{}"]) {
          const made = [
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-o",
            `compat=${compat},cluster_size=${cluster}`,
          ];
          await must(directory, "qemu-img", ...made, "-b", name, "-F", "vmdk", "o", "1M");
          const { header, furthest } = headerOf(Deno.readFileSync(`${directory}/o`));
          assert.deepEqual(header, {
            version: compat === "1.1" ? 3 : 2,
            backingFile: name,
            backingFormat: "vmdk",
            dataFile: undefined,
          });
          assert.ok(furthest <= Number(cluster), "nothing outside of the first cluster");
        }
      }
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("10 000 headers with random damage: an answer or an error in one line, and no look outside of the first cluster", () => {
  const seeds = [
    image({ backing: { name: "../base.qcow2" }, extensions: [[FORMAT, "qcow2"], [1, "something else"]] }),
    image({ version: 2, backing: { name: "b" }, extensions: [[FORMAT, "raw"]] }),
    image({ incompatible: DATA_FILE, extensions: [[DATA, "d.raw"], [0x6803f857, "x".repeat(96)]] }),
    image({ clusterBits: 21, backing: { name: "b" }, size: 4096 }),
  ];
  const damage = fc.array(
    fc.oneof(
      fc.tuple(fc.nat(200), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff)),
      fc.tuple(fc.constantFrom(3, 4, 7, 8, 15, 16, 19, 20, 23, 79, 100, 103, 112, 116, 119), fc.nat(255)),
    ),
    { minLength: 1, maxLength: 8 },
  );
  let read = 0;
  fc.assert(
    fc.property(fc.constantFrom(...seeds), damage, fc.nat(70000), (seed, changes, length) => {
      const bytes = seed.slice(0, Math.max(length, 40));
      for (const [at, value] of changes) bytes[at] = value;
      try {
        const { header, furthest } = headerOf(bytes);
        read++;
        assert.ok(furthest <= 2 ** bytes[23]!, `${furthest}`);
        for (const name of [header.backingFile, header.backingFormat, header.dataFile]) {
          assert.ok(name === undefined || (name !== "" && !name.includes("\0") && name.length <= 4096));
        }
      } catch (error) {
        if (!(error instanceof LockvisorError)) throw error;
        assert.equal(error.code, "data");
        assert.doesNotMatch(error.message, /\n/);
      }
    }),
    { numRuns: 10_000 },
  );
  assert.ok(read > 100, "else nothing but the first check is tried");
});
