import assert from "node:assert/strict";
import type { World } from "./world.ts";

/** `lockvisor reconcile vm1`, which settles what was cut off first. */
export async function settleJobs(world: World): Promise<{ done: string[]; warnings: string[] }> {
  const { code, stdout, stderr } = await world.run(["reconcile", "vm1", "--json"]);
  assert.equal(code, 0, stderr);
  const { jobs, warnings } = JSON.parse(stdout);
  return { done: jobs, warnings };
}
