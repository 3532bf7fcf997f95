import assert from "node:assert/strict";
import { World } from "./support/world.ts";

Deno.test("what a guest of the same name in another lockspace holds is none of this guest's left-overs", async () => {
  await using world = await World.create();
  await using other = await World.create();
  const namesake = await other.startRunning(["run", "--name", "vm1", "--", "sleep", "600"]);
  await world.startRunning(["run", "--name", "vm1", "--", "sh", "-c", "sleep 600 & exec sleep 600"]);
  const { code, stdout, stderr } = await world.run(["stop", "vm1", "--json"]);
  const { processes } = JSON.parse(stdout).error;
  try {
    assert.equal(code, 75, stderr);
    assert.deepEqual(processes.map(({ command }: { command: string }) => command), ["sleep"]);
    assert.notEqual(processes[0].pid, namesake.pid);
  } finally {
    for (const { pid } of processes) if (pid !== namesake.pid) Deno.kill(pid, "SIGKILL");
  }
});
