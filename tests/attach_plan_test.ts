import assert from "node:assert/strict";
import type { Holding, Known } from "../lib/driver/contract.ts";
import { whereabouts } from "../lib/manager/attach_plan.ts";
import type { Life } from "../lib/process/process_identity.ts";

const LEASE = "a".repeat(64);

function holding(pid: number, startTime: string, kind: "holder" | "other", key = LEASE): Holding {
  const process = { pid, startTime, bootId: "boot", pidNamespace: "pid:[1]" };
  const locks = [{ key, slots: { a: 3, b: 4 } }];
  return kind === "holder" ? { process, locks, kind, guestPid: 1 } : { process, locks, kind };
}

Deno.test("where a guest is, by the kernel's word", () => {
  const [old, young, holder] = [
    holding(20, "900", "other"),
    holding(10, "1000", "other"),
    holding(5, "1", "holder"),
  ];
  const foreign = holding(6, "1", "other", "b".repeat(64));
  const cases: [life: Life, holdings: Holding[], leaseHeld: Known, dead: number[], expected: string][] = [
    ["alive", [], false, [], "same"],
    ["unknown", [old], true, [], "unseen"],
    ["dead", [], false, [], "gone"],
    ["dead", [holder, foreign], false, [], "gone"],
    ["dead", [young, holder, old, foreign], true, [], "forked 20"],
    // What was seen a moment ago has ended: it is nobody's heir.
    ["dead", [old], false, [20], "gone"],
    ["dead", [old, young], true, [20], "forked 10"],
    // A record is dropped only when the lease is known to be free: a fork may be newer than the holdings, or unseen.
    ["dead", [], true, [], "hidden"],
    ["dead", [], null, [], "hidden"],
  ];
  for (const [life, holdings, leaseHeld, dead, expected] of cases) {
    const where = whereabouts(life, [LEASE], {
      holdings,
      leaseHeld: () => leaseHeld,
      lifeOf: ({ pid }) => dead.includes(pid) ? "dead" : "alive",
    });
    const shown = where.kind === "forked" ? `forked ${where.heir.process.pid}` : where.kind;
    assert.equal(shown, expected, JSON.stringify([life, holdings, leaseHeld, dead]));
  }
});
