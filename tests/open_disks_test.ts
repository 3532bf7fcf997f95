import assert from "node:assert/strict";
import { disksOfFiles, disksOfLeaves } from "../lib/manager/open_disks.ts";
import { type ImageFile, imageLockOf } from "../lib/process/image_files.ts";
import { type OpenLeaf, openLeaves } from "../lib/qemu/open_leaves.ts";
import { type OpenNode, readNodes, readPermissionGraph } from "../lib/qemu/permission_graph.ts";

/** An edge in a line: `PARENT>CHILD NAME USES/SHARES`, the permissions as letters of wrRu (write, read, resize, unchanged). */
function graphOf(nodes: readonly OpenNode[], lines: readonly string[]) {
  const vertices = [...new Set(lines.flatMap((line) => line.split(" ")[0]!.split(">")))];
  const permissions = (letters: string) =>
    [..."wrRu"].filter((letter) => letters.includes(letter)).map((letter) => ({
      w: "write",
      r: "consistent-read",
      R: "resize",
      u: "write-unchanged",
    }[letter]));
  const isNode = (name: string) => nodes.some((node) => node.name === name);
  return readPermissionGraph({
    nodes: vertices.map((name, id) => ({
      id,
      name,
      type: isNode(name) ? "block-driver" : name.startsWith("job") ? "block-job" : "block-backend",
    })),
    edges: lines.map((line) => {
      const [ends, name, modes] = line.split(" ") as [string, string, string];
      const [parent, child] = ends.split(">").map((each) => vertices.indexOf(each));
      const [uses, shares] = modes.split("/") as [string, string];
      return { parent, child, name, perm: permissions(uses), "shared-perm": permissions(shares) };
    }),
  }, nodes);
}

function node(name: string, driver: string, file: string, readOnly = false): OpenNode {
  return { name, driver, file, readOnly };
}

function leavesInWords(nodes: readonly OpenNode[], lines: readonly string[] | undefined): string[] {
  const graph = lines === undefined ? undefined : graphOf(nodes, lines);
  const { leaves, unnamed } = openLeaves(nodes, graph, "/run/qemu");
  return [
    ...leaves.map(({ is, access, place, certainty }) =>
      `${is.kind === "path" ? is.path : is.name}: ${access} ${place}${
        certainty === "told" ? "" : ` ${certainty}`
      }`
    ),
    ...unnamed,
  ];
}

const CHAIN = [
  node("top", "qcow2", "top.img"),
  node("top-file", "file", "top.img"),
  node("base", "qcow2", "/i/base"),
  node("base-file", "file", "/i/base"),
];
const CHAIN_EDGES = [
  "dev>top root wr/uRr",
  "top>top-file file wrR/ur",
  "top>base backing r/ur",
  "base>base-file file r/ur",
];

Deno.test("a chain: the top is written, what is below only read; relative names start where QEMU runs", () => {
  assert.deepEqual(leavesInWords(CHAIN, CHAIN_EDGES), [
    "/run/qemu/top.img: exclusive other",
    "/i/base: readonly backing",
  ]);
});

Deno.test("a backing file with a device or a job of its own is more than that", () => {
  assert.deepEqual(leavesInWords(CHAIN, [...CHAIN_EDGES, "cd>base root r/ur"])[1], "/i/base: readonly other");
  assert.deepEqual(
    leavesInWords(CHAIN, [...CHAIN_EDGES, "job>base main r/ur"])[1],
    "/i/base: readonly other",
  );
});

Deno.test("what a commit writes into is written, and what a job's filter has below is no backing file", () => {
  const nodes = [...CHAIN, node("filter", "mirror_top", "top.img")];
  const edges = [
    "dev>filter root wr/uRr",
    "filter>top backing wr/wuRr",
    "job>top main -/wuRr",
    "job>base target wR/ur",
    "top>top-file file wrR/ur",
    "top>base backing r/wuRr",
    "base>base-file file wrR/ur",
  ];
  assert.deepEqual(leavesInWords(nodes, edges), [
    "/run/qemu/top.img: exclusive other",
    "/i/base: exclusive other",
  ]);
  const idle = [
    "filter>top backing r/wuRr",
    "top>top-file file r/ur",
    "top>base backing r/ur",
    "base>base-file file r/ur",
  ];
  assert.deepEqual(leavesInWords(nodes, idle)[0], "/run/qemu/top.img: readonly other");
});

Deno.test("writes are shared only if everybody above shares them", () => {
  const nodes = [node("raw", "raw", "/i/a"), node("file", "file", "/i/a")];
  assert.deepEqual(leavesInWords(nodes, ["dev>raw root wr/wr", "raw>file file wr/wr"]), [
    "/i/a: shared other",
  ]);
  assert.deepEqual(
    leavesInWords(nodes, ["dev>raw root wr/wr", "raw>file file wr/wr", "other>file root r/r"]),
    ["/i/a: exclusive other"],
  );
  // What is rewritten as it was is not written.
  assert.deepEqual(leavesInWords(nodes, ["dev>raw root r/wr", "raw>file file ru/wr"]), [
    "/i/a: readonly other",
  ]);
  assert.deepEqual(leavesInWords(nodes, ["raw>file file rR/wr"]), ["/i/a: shared other"]);
});

Deno.test("what nobody uses yet may be written at any moment, unless it was opened for reading only", () => {
  const nodes = (top: boolean, below: boolean) => [
    node("raw", "raw", "/i/a", top),
    node("file", "file", "/i/a", below),
  ];
  const idle = ["raw>file file -/wuRr"];
  assert.deepEqual(leavesInWords(nodes(false, false), idle), ["/i/a: exclusive other foreseen"]);
  assert.deepEqual(leavesInWords(nodes(false, false).slice(1), []), ["/i/a: exclusive other foreseen"]);
  assert.deepEqual(leavesInWords(nodes(true, false), idle), ["/i/a: readonly other"]);
  assert.deepEqual(leavesInWords(nodes(false, true), idle), ["/i/a: readonly other"]);
  // A device that only reads has it already.
  assert.deepEqual(leavesInWords(nodes(false, false), ["cd>raw root r/wuRr", "raw>file file r/wuRr"]), [
    "/i/a: readonly other",
  ]);
  // A backing file of an image that nobody uses is only read.
  assert.deepEqual(leavesInWords(CHAIN, CHAIN_EDGES.slice(1)), [
    "/run/qemu/top.img: exclusive other",
    "/i/base: readonly backing",
  ]);
});

Deno.test("names on a network and in the form json:{…} are those that --disk takes", () => {
  const names: [string, string, string][] = [
    ["nbd", "nbd+unix:///a?socket=s", "nbd+unix:///a?socket=/run/qemu/s"],
    ["nbd", "nbd+unix:///a?socket=/t/s", "nbd+unix:///a?socket=/t/s"],
    ["nbd", "nbd:unix:s:exportname=a", "nbd:unix:/run/qemu/s:exportname=a"],
    ["nbd", "nbd://host:10809/a", "nbd://host:10809/a"],
    [
      "nbd",
      'json:{"driver":"nbd","server":{"type":"inet","host":"h","port":"1"},"export":"a"}',
      "nbd://h:1/a",
    ],
    ["rbd", 'json:{"driver":"rbd","pool":"p","image":"i","conf":"c"}', "rbd:p/i"],
    ["file", 'json:{"driver":"file","filename":"x y"}', "/run/qemu/x y"],
    ["file", "json:{}", "/run/qemu/json:{}"],
    ["host_device", "/dev/sdz", "/dev/sdz"],
  ];
  for (const [driver, file, name] of names) {
    const edges = ["dev>n root wr/ur"];
    assert.deepEqual(leavesInWords([node("n", driver, file)], edges), [`${name}: exclusive other`], file);
  }
  assert.deepEqual(leavesInWords([node("n", "https", "https://h/a")], ["dev>n root wr/ur"]), [
    "https://h/a: readonly other",
  ]);
});

Deno.test("what cannot be named is told, and what is no disk is not", () => {
  const nodes = [
    node("a", "rbd", 'json:{"driver":"rbd"}'),
    node("b", "newdriver", "x"),
    node("c", "virtio-blk-vhost-user", "/s"),
    node("d", "null-co", "null-co://"),
    node("e", "newformat", "/i/a"),
    node("f", "file", "/i/a"),
  ];
  assert.deepEqual(leavesInWords(nodes, ["e>f file wr/r"]), [
    "/i/a: exclusive other",
    'node "a" (rbd): what QEMU calls it does not tell which disk it is',
    'node "b" (newdriver): this driver is not known',
    'node "c" (virtio-blk-vhost-user): another process opens its disk',
  ]);
});

Deno.test("without the graph only how a node was opened counts, and that is a guess", () => {
  const nodes = [node("a", "file", "/i/a"), node("b", "file", "/i/b", true)];
  assert.deepEqual(leavesInWords(nodes, undefined), [
    "/i/a: exclusive unknown guessed",
    "/i/b: readonly unknown guessed",
  ]);
});

Deno.test("replies that are not as we know them are no graph, and no nodes", () => {
  for (
    const reply of [null, 1, {}, { nodes: [], edges: 1 }, { nodes: [], edges: [{ parent: 1, child: 2 }] }]
  ) {
    assert.equal(readPermissionGraph(reply, []), undefined, JSON.stringify(reply));
  }
  assert.deepEqual(readNodes([{ "node-name": "a", drv: "file", ro: false, file: "x" }, 1, {}, null]), [
    node("a", "file", "x"),
  ]);
  assert.deepEqual(readNodes({}), []);
});

function info(...ranges: string[]): string {
  return [
    "pos:\t0\nflags:\t02100002\nmnt_id:\t27\nino:\t5",
    ...ranges.map((range, index) =>
      `lock:\t${index + 1}: OFDLCK ADVISORY  READ -1 fe:00:5 ${range.replace("-", " ")}`
    ),
    "",
  ].join("\n");
}

Deno.test("QEMU's locks on an image tell what it does with it", () => {
  const cases: [string[], ReturnType<typeof imageLockOf>][] = [
    [[], undefined],
    [["100-101", "103-103", "201-201", "203-203"], { writes: true, sharesWrites: false }],
    [["100-101"], { writes: true, sharesWrites: true }],
    [["100-100", "201-201", "203-203"], { writes: false, sharesWrites: false }],
    [["100-100"], { writes: false, sharesWrites: true }],
    [["103-103"], { writes: true, sharesWrites: true }],
    [["102-102"], { writes: false, sharesWrites: true }],
    [["100-203"], { writes: true, sharesWrites: false }],
    [["0-9223372036854775807"], undefined],
    [["0-0"], undefined],
  ];
  for (const [ranges, wanted] of cases) assert.deepEqual(imageLockOf(info(...ranges)), wanted, `${ranges}`);
  assert.equal(imageLockOf("lock:\t1: POSIX  ADVISORY  WRITE 9 fe:00:5 100 101\n"), undefined);
  assert.equal(imageLockOf("lock:\t1: FLOCK  ADVISORY  WRITE 9 fe:00:5 0 EOF\n"), undefined);
});

const WRITTEN = { writes: true, sharesWrites: false };

function file(path: string, id: string, rest: Partial<ImageFile> = {}): ImageFile {
  return {
    descriptor: 9,
    path,
    id,
    isUnlinked: false,
    isNameless: false,
    isBlockDevice: false,
    isWritable: true,
    imageLock: WRITTEN,
    ...rest,
  };
}

function leaf(path: string, access: OpenLeaf["access"] = "exclusive"): OpenLeaf {
  return { node: "n", is: { kind: "path", path }, access, certainty: "told", place: "other" };
}

Deno.test("a name of QEMU's counts if it leads to a file that its process has open", () => {
  const paths = new Map([["/a", "1"], ["/link", "1"], ["/b", "7"], ["/new", "2"]]);
  const at = (path: string) => paths.get(path);
  const gone = { isUnlinked: true, isNameless: true };
  const files = [file("/a", "1"), file("/new", "2"), file("/tmp/vl", "3", gone), file("/c", "4", gone)];
  const view = disksOfLeaves(
    [leaf("/a"), leaf("/link", "readonly"), leaf("/old"), leaf("/b"), leaf("/tmp/vl")],
    files,
    at,
  );
  assert.deepEqual(view.disks.map(({ name, access, place }) => `${name} ${access} ${place}`), [
    "/a exclusive other",
    "/new exclusive unknown",
  ]);
  assert.deepEqual(view.warnings.map((line) => /disk (\S+)/.exec(line)?.[1]), ["/old", "/b"]);
  assert.deepEqual(view.strays, []);
  assert.deepEqual(disksOfLeaves([leaf("/old")], undefined, at).disks.map(({ name }) => name), ["/old"]);
});

Deno.test("by descriptors an image is what QEMU has locked, and a block device; a log is none", () => {
  const at = (path: string) => ({ "/a": "1", "/log": "2", "/dev/x": "3", "/dev/y": "4" })[path];
  const view = disksOfFiles([
    file("/a", "1"),
    file("/log", "2", { imageLock: undefined }),
    file("/dev/x", "3", { imageLock: undefined, isBlockDevice: true }),
    file("/dev/y", "4", { imageLock: undefined, isBlockDevice: true, isWritable: false }),
    file("/moved", "5"),
    file("/moved", "6", { isUnlinked: true }),
    file("/vl", "7", { isUnlinked: true, isNameless: true }),
  ], at);
  assert.deepEqual(view.disks.map(({ name, access, certainty }) => `${name} ${access} ${certainty}`), [
    "/a exclusive told",
    "/dev/x exclusive guessed",
    "/dev/y readonly guessed",
  ]);
  assert.deepEqual(view.strays.map(({ file }) => file.id), ["5", "6"]);
});
