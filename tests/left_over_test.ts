import assert from "node:assert/strict";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/** Starts a guest with a child that has its locks too. */
async function startWithChild(world: World): Promise<number> {
  const guest = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--",
    "sh",
    "-c",
    "sleep 600 & exec sleep 600",
  ]);
  const children = () => Deno.readTextFileSync(`/proc/${guest.pid}/task/${guest.pid}/children`).trim();
  await until("it has a child", () => children() !== "");
  return Number(children());
}

Deno.test("what a guest of the same name in another lockspace holds is none of this guest's left-overs", async () => {
  await using world = await World.create();
  await using other = await World.create();
  const children = [await startWithChild(world), await startWithChild(other)];
  try {
    const { code, stdout, stderr } = await world.run(["stop", "vm1", "--json"]);
    assert.equal(code, 75, stderr);
    const { processes } = JSON.parse(stdout).error;
    assert.deepEqual(processes, [{ pid: children[0], command: "sleep" }]);
  } finally {
    for (const child of children) Deno.kill(child, "SIGKILL");
  }
});
