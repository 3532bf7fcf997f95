import assert from "node:assert/strict";
import fc from "fast-check";
import { LockvisorError } from "../lib/errors.ts";
import { readImageFiles } from "../lib/image/image_reader.ts";
import type { FoundDisk } from "../lib/qemu/found_disks.ts";
import { formatValue } from "../lib/qemu/option_string.ts";
import { understandQemu } from "../lib/qemu/understand.ts";
import { makeImages } from "./support/qemu_images.ts";
import { askQemu, type QemuReality } from "./support/qemu_reality.ts";

/*
 * Command lines that nobody has thought of: whatever a real QEMU opens for them must be locked, and what it can write must
 * not be locked readonly. LOCKVISOR_RANDOM_LINES is how many are tried; some thousands take ten minutes.
 */
const LINES = Number(Deno.env.get("LOCKVISOR_RANDOM_LINES") ?? 60);

const RAW = ["a.raw", "b.raw", "base.raw", "with,comma.raw", "a=b.raw", "c.raw"];
const QCOW2 = [
  ..."alone over top over2 over-raw version2 json-backing unstated-backing".split(" ").map((name) =>
    `${name}.qcow2`
  ),
  "folder/inner.qcow2",
  "folder/link.qcow2",
  "folder/split.qcow2",
];

const oneOf = <Value>(...values: Value[]) => fc.constantFrom(...values);
const rarely = (option: fc.Arbitrary<string>) => fc.option(option, { nil: undefined, freq: 5 });
const onOff = oneOf("on", "off", "yes", "no", "true", "false");
const switched = (name: string) => rarely(onOff.map((value) => `${name}=${value}`));

const IMAGE = fc.oneof(
  fc.record({ format: fc.constant("raw"), file: oneOf(...RAW) }),
  fc.record({ format: fc.constant("qcow2"), file: oneOf(...QCOW2) }),
);

/** An image as a `-drive` may name it. */
const NAMED = IMAGE.chain(({ format, file }) => {
  const stated = rarely(fc.constant("")).chain((left) =>
    left === undefined ? oneOf(`format=${format}`, `driver=${format}`) : fc.constant(undefined)
  );
  const path = formatValue(file);
  const json = (options: object) => `file=json:${formatValue(JSON.stringify(options))}`;
  return fc.oneof(
    fc.tuple(oneOf(`file=${path}`, `file=file:${path}`, `file.filename=${path}`), stated),
    fc.tuple(fc.constant(`file.driver=file,file.filename=${path}`), stated),
    fc.tuple(fc.constant(`driver=raw,file.driver=${format},file.file.filename=${path}`)),
    fc.tuple(
      fc.record({
        driver: fc.constant(format),
        file: fc.record({
          driver: fc.constant("file"),
          filename: fc.constant(file),
          "read-only": fc.boolean(),
        }, {
          requiredKeys: ["driver", "filename"],
        }),
      }).map(json),
    ),
  );
});

const HOW = fc.tuple(
  ...["readonly", "read-only", "snapshot", "auto-read-only", "file.read-only", "file.auto-read-only"].map(
    switched,
  ),
  switched("backing.read-only"),
  switched("backing.auto-read-only"),
  rarely(oneOf("readonly", "noreadonly", "media=cdrom", "copy-on-read=on", "cache=none")),
  rarely(fc.constant("backing.file.filename=base2.qcow2,backing.driver=qcow2")),
  rarely(fc.constant("file.locking=off")),
);

const DRIVE = fc.tuple(NAMED, HOW, oneOf("virtio", "none", "device", "shared")).chain(
  ([named, how, attached]) => {
    const words = [...named, ...how].filter((word) => word !== undefined);
    return fc.shuffledSubarray(words, { minLength: words.length }).map((mixed) => ({ mixed, attached }));
  },
);

/** A node of `-blockdev`, as JSON has it. */
type Node = Record<string, unknown>;

const { node: NODE } = fc.letrec<{ node: Node }>((tie) => {
  const below = fc.oneof({ maxDepth: 3 }, fileNode(RAW), tie("node"));
  const layer = (driver: string, more: Record<string, fc.Arbitrary<unknown>>) =>
    fc.record({
      driver: fc.constant(driver),
      "read-only": fc.option(fc.boolean(), { nil: undefined, freq: 2 }),
      "auto-read-only": fc.option(fc.boolean(), { nil: undefined, freq: 2 }),
      ...more,
    }) as fc.Arbitrary<Node>;
  const filters = [
    layer("raw", { file: below }),
    layer("throttle", { "throttle-group": fc.constant("t0"), file: below }),
    layer("copy-on-read", { file: below }),
    layer("blkdebug", { image: below }),
    layer("quorum", { "vote-threshold": fc.constant(1), children: fc.tuple(below, below) }),
  ];
  return {
    node: fc.oneof(
      { maxDepth: 3, depthIdentifier: "nodes" },
      layer("qcow2", {
        file: fileNode(QCOW2),
        backing: oneOf(undefined, undefined, null, {
          driver: "qcow2",
          file: { driver: "file", filename: "base2.qcow2" },
        }),
      }),
      ...filters,
    ),
  };
});

function fileNode(names: readonly string[]): fc.Arbitrary<Node> {
  return fc.record({
    driver: fc.constant("file"),
    filename: fc.constantFrom(...names),
    "read-only": fc.option(fc.boolean(), { nil: undefined, freq: 2 }),
    "auto-read-only": fc.option(fc.boolean(), { nil: undefined, freq: 2 }),
  });
}

/** A tree of nodes as one option, or as one for each node that refers to the next by its name. */
function blockdevs(node: Node, writing: "nested" | "references", prefix: string): string[] {
  const all: Node[] = [];
  const taken = (each: Node): unknown => {
    const copy: Node = { ...each };
    for (const [name, value] of Object.entries(each)) {
      if (Array.isArray(value)) copy[name] = value.map(taken);
      else if (typeof value === "object" && value !== null) copy[name] = taken(value as Node);
    }
    if (writing === "nested") return copy;
    copy["node-name"] = `${prefix}${all.length}`;
    all.push(copy);
    return copy["node-name"];
  };
  const root = taken(node);
  if (writing === "nested") all.push(root as Node);
  all.at(-1)!["node-name"] = prefix;
  return all.flatMap((each) => ["-blockdev", JSON.stringify(each)]);
}

const BLOCKDEV = fc.record({
  node: NODE,
  writing: oneOf<"nested" | "references">("nested", "references"),
  attached: oneOf("none", "device", "shared"),
});

const LINE = fc.record({
  drives: fc.array(DRIVE, { maxLength: 2 }),
  blockdev: fc.option(BLOCKDEV, { nil: undefined }),
  snapshot: fc.option(fc.constant("-snapshot"), { nil: undefined, freq: 8 }),
}).map(({ drives, blockdev, snapshot }) => {
  const device = (id: string, attached: string) =>
    attached === "none" || attached === "virtio"
      ? []
      : ["-device", `virtio-blk-pci,drive=${id},share-rw=${attached === "shared" ? "on" : "off"}`];
  return [
    "-object",
    "throttle-group,id=t0,x-iops-total=100",
    ...drives.flatMap(({ mixed, attached }, index) => [
      "-drive",
      [...mixed, attached === "virtio" ? "if=virtio" : `if=none,id=d${index}`].join(","),
      ...device(`d${index}`, attached),
    ]),
    ...blockdev === undefined
      ? []
      : [...blockdevs(blockdev.node, blockdev.writing, "n"), ...device("n", blockdev.attached)],
    ...snapshot === undefined ? [] : [snapshot],
  ];
});

/** Compares what would be locked with what QEMU has open. */
function compare(disks: readonly FoundDisk[], { files }: QemuReality): void {
  const accesses = new Map<string, string[]>();
  for (const { name, access } of disks) {
    const path = Deno.realPathSync(name);
    accesses.set(path, [...accesses.get(path) ?? [], access]);
  }
  for (const path of accesses.keys()) assert.ok(files.has(path), `QEMU does not open ${path}`);
  // Nobody looks for formats that are not stated, but QEMU.
  const isComplete = disks.every(({ format }) => format !== undefined);
  for (const [path, { written }] of files) {
    const found = accesses.get(path);
    if (found === undefined) assert.ok(!isComplete, `QEMU opens ${path}`);
    else if (written) assert.ok(found.some((access) => access !== "readonly"), `QEMU can write ${path}`);
  }
}

Deno.test(`${LINES} random command lines: what QEMU opens is locked, and what it can write not readonly`, async () => {
  const directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-test-" }));
  let compared = 0;
  try {
    await makeImages(directory);
    await fc.assert(
      fc.asyncProperty(LINE, async (args) => {
        let reality: QemuReality;
        try {
          reality = await askQemu(args, directory);
        } catch {
          return; // not even QEMU understands it, or two of its nodes do not go together
        }
        const understood = await understandQemu(args, {
          directory,
          images: { read: readImageFiles, warn: () => {} },
          config: { read: () => assert.fail("no file is named"), readDefault: () => undefined },
        });
        compare(understood.disks, reality);
        compared++;
      }),
      { numRuns: LINES, endOnFailure: true },
    );
    assert.ok(compared > LINES / 10, `only ${compared} of the lines were any good`);
  } catch (error) {
    if (error instanceof LockvisorError) assert.fail(`refused what QEMU takes: ${error.message}`);
    throw error;
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
