import assert from "node:assert/strict";
import fc from "fast-check";
import { fittingLine, progressParts } from "../lib/cli/migration_progress.ts";
import { displayWidth } from "../lib/cli/display_width.ts";
import { ProgressLine } from "../lib/cli/progress_line.ts";
import { formatSize, parseSize } from "../lib/config/size.ts";
import { LockvisorError } from "../lib/errors.ts";
import { readMigrationState, remainingSeconds } from "../lib/migration/progress.ts";

/** As QEMU 7.2 has answered, shortened. */
const ACTIVE = {
  status: "active",
  "expected-downtime": 300,
  "total-time": 4096,
  ram: {
    total: 1_082_130_432,
    remaining: 541_065_216,
    transferred: 300_000_000,
    mbps: 800,
    "dirty-pages-rate": 1000,
    "page-size": 4096,
    "dirty-sync-count": 3,
  },
};

Deno.test("what QEMU tells of a migration is read", () => {
  const state = readMigrationState({ ...ACTIVE, "cpu-throttle-percentage": 20 });
  assert.equal(state.kind, "moving");
  if (state.kind !== "moving") return;
  assert.deepEqual(state.progress, {
    totalBytes: 1_082_130_432,
    remainingBytes: 541_065_216,
    sentBytes: 300_000_000,
    speed: 1e8,
    dirtyRate: 4_096_000,
    iteration: 3,
    throttle: 20,
    elapsedMs: 4096,
  });
  assert.equal(Math.round(remainingSeconds(state.progress)! * 10), 56);
  assert.equal(remainingSeconds({ ...state.progress, dirtyRate: 1e8 }), undefined);
  assert.deepEqual(progressParts(state.progress), [
    "50 %",
    "516 MiB of 1.01 GiB",
    "95.4 MiB/s",
    "6 s left",
    "pass 3",
    "3.91 MiB/s change",
    "slowed by 20 %",
  ]);
});

Deno.test("the ends of a migration are told apart, and what says nothing is no migration", () => {
  const kinds = [
    "completed",
    "failed",
    "cancelled",
    "cancelling",
    "none",
    "setup",
    "device",
    "pre-switchover",
  ].map(
    (status) => readMigrationState({ status }).kind,
  );
  assert.deepEqual(kinds, [
    "completed",
    "failed",
    "cancelled",
    "cancelled",
    "cancelled",
    "moving",
    "moving",
    "moving",
  ]);
  for (const strange of [undefined, null, {}, [], 1]) {
    assert.equal(readMigrationState(strange).kind, "cancelled");
  }
  assert.deepEqual(readMigrationState({ status: "failed", "error-desc": "no route" }), {
    kind: "failed",
    reason: "no route",
  });
});

Deno.test("whatever QEMU tells, a line on it can be made, and it fits", () => {
  fc.assert(fc.property(fc.object(), fc.integer({ min: 1, max: 200 }), fc.string(), (ram, columns, start) => {
    const state = readMigrationState({ status: "active", ram: { ...ram, total: ram.total ?? 1 } });
    assert.equal(state.kind, "moving");
    if (state.kind !== "moving") return;
    assert.ok(displayWidth(fittingLine(start, progressParts(state.progress), columns)) <= columns);
  }));
  assert.equal(fittingLine("vm", ["50 %", "much"], 10), "vm: 50 %");
  assert.equal(fittingLine("vm", ["50 %", "much"], 14), "vm: 50 %, much");
  assert.equal(fittingLine("広い", ["50 %"], 3), "広");
});

Deno.test("a size is a number of bytes, and back", () => {
  assert.deepEqual(["1", "2K", "100M", "1.5G", "3MiB", "4kb"].map((text) => parseSize("--x", text)), [
    1,
    2048,
    104857600,
    1610612736,
    3145728,
    4096,
  ]);
  for (const text of ["", "0", "-1", "1T", "M", "1.", "1e3", "9999999999G", "1 M"]) {
    assert.throws(
      () => parseSize("--x", text),
      (error) => error instanceof LockvisorError && error.code === "usage",
    );
  }
  assert.deepEqual([0, 999, 1023, 10_240, 1048064, 1e12].map(formatSize), [
    "0 B",
    "999 B",
    "1.00 KiB",
    "10.0 KiB",
    "1.00 MiB",
    "931 GiB",
  ]);
});

Deno.test("progress on a terminal is one line, with pauses; elsewhere it is lines, with longer ones", () => {
  const written: string[] = [];
  const terminal = new ProgressLine({
    kind: "terminal",
    columns: () => 20,
    write: (text) => written.push(text),
  });
  terminal.clear();
  terminal.reached((columns) => `at ${columns}`);
  terminal.goesOn(() => "too soon");
  terminal.clear();
  terminal.clear();
  assert.deepEqual(written, ["\r\x1b[Kat 19", "\r\x1b[K"]);

  const lines: string[] = [];
  const plain = new ProgressLine({ kind: "lines", note: (line) => lines.push(line) });
  plain.goesOn((columns) => `first ${columns}`);
  plain.goesOn(() => "too soon");
  plain.reached(() => "at once");
  plain.clear();
  assert.deepEqual(lines, ["first Infinity", "at once"]);
});
