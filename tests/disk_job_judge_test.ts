import assert from "node:assert/strict";
import type { DisksView } from "../lib/manager/disk_chain.ts";
import { readDisks } from "../lib/manager/disk_chain.ts";
import { type DiskJobVerdict, judgeDiskJob } from "../lib/manager/disk_job_judge.ts";
import { type DiskJob, withReplaced } from "../lib/manager/disk_job_record.ts";

/** A view of the disk "vda" with these nodes in its chain, and with the job "j" in this state, if any. */
function view(chain: string[], job?: { status: string; error?: string }): DisksView {
  return readDisks({
    directory: "/d",
    nodes: chain.map((name) => ({ "node-name": name, drv: "qcow2", file: `/d/${name}` })),
    graph: {
      nodes: chain.map((name, id) => ({ id, name, type: "block-driver" })),
      edges: chain.slice(1).map((_, index) => ({ parent: index, child: index + 1, name: "backing" })),
    },
    blocks: [{
      device: "",
      qdev: "/machine/peripheral/vda/virtio-backend",
      inserted: { "node-name": chain[0] },
    }],
    jobs: job === undefined
      ? []
      : [{ id: "j", type: "x", "current-progress": 1, "total-progress": 2, ...job }],
  });
}

const DISK = { place: "/machine/peripheral/vda/virtio-backend", name: "vda" };

type Known = Partial<Pick<DiskJob, "phase" | "finish" | "commit">>;

const COMMIT: Known = {
  commit: { top: { node: "over", file: "/d/over" }, base: { node: "top", file: "/d/top" } },
};

const TABLE: [string, DiskJob["kind"], Known, DisksView, DiskJobVerdict["kind"]][] = [
  ["the overlay is in the chain", "snapshot", {}, view(["j-img", "top"]), "done"],
  ["the overlay is not in the chain", "snapshot", {}, view(["top"]), "failed"],
  ["another overlay was put over it", "snapshot", {}, view(["x", "j-img", "top"]), "done"],
  ["the guest has gone over", "mirror", {}, view(["j-img"], { status: "concluded" }), "done"],
  [
    "the guest has gone over, and nobody knows the job",
    "mirror",
    { phase: "running" },
    view(["j-img"]),
    "done",
  ],
  [
    "the guest has gone over while it was to be undone",
    "mirror",
    { phase: "undoing" },
    view(["j-img"]),
    "done",
  ],
  ["it copies", "mirror", {}, view(["top"], { status: "running" }), "goes-on"],
  ["it is paused", "mirror", {}, view(["top"], { status: "paused" }), "goes-on"],
  ["it is ready", "mirror", {}, view(["top"], { status: "ready" }), "goes-on"],
  ["it has failed", "mirror", {}, view(["top"], { status: "concluded", error: "no room" }), "failed"],
  ["it has never begun", "mirror", { phase: "preparing" }, view(["top"]), "failed"],
  ["it is gone, and the guest has not gone over", "mirror", { phase: "running" }, view(["top"]), "failed"],
  ["the copy is whole", "mirror", { finish: "copy" }, view(["top"], { status: "concluded" }), "done"],
  ["somebody had the guest go over to the copy", "mirror", { finish: "copy" }, view(["j-img"]), "done"],
  ["the copy was seen to be whole", "backup", { phase: "complete" }, view(["top"]), "done"],
  ["nobody saw the end", "backup", { phase: "running" }, view(["top"]), "unknown"],
  ["nobody saw the end of what is undone", "backup", { phase: "undoing" }, view(["top"]), "failed"],
  ["it has never begun", "backup", { phase: "preparing" }, view(["top"]), "failed"],
  [
    "it was cancelled",
    "backup",
    { phase: "running" },
    view(["top"], { status: "concluded", error: "x" }),
    "failed",
  ],
  ["what was committed has left", "commit", COMMIT, view(["top"]), "done"],
  [
    "what was committed has left the middle",
    "commit",
    COMMIT,
    view(["x", "top"], { status: "concluded" }),
    "done",
  ],
  ["it is still there", "commit", COMMIT, view(["over", "top"]), "failed"],
  ["it is written", "commit", COMMIT, view(["over", "top"], { status: "running" }), "goes-on"],
  ["the disk has gone", "commit", COMMIT, view([]), "failed"],
];

for (const [title, kind, known, seen, verdict] of TABLE) {
  Deno.test(`judgeDiskJob, ${kind}${known.finish === undefined ? "" : ` --finish ${known.finish}`}: ${title}`, () => {
    const job = { id: "j", kind, phase: "running" as const, disk: DISK, ...known };
    assert.equal(judgeDiskJob(job, seen).kind, verdict);
  });
}

Deno.test("what a disk had at the start is remembered through all that replaces it, and forgotten when it is back", () => {
  const one = withReplaced(undefined, { disk: "a", from: "top", to: "one" });
  const two = withReplaced(one, { disk: "a", from: "one", to: "two" });
  assert.deepEqual(two, [{ disk: "a", from: "top", to: "two" }]);
  assert.deepEqual(
    withReplaced([...two, { disk: "b", from: "x", to: "y" }], { disk: "a", from: "two", to: "top" }),
    [
      { disk: "b", from: "x", to: "y" },
    ],
  );
  assert.deepEqual(withReplaced(undefined, { disk: "a", from: "top", to: "top" }), []);
});
