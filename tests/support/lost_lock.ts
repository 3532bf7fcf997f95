import assert from "node:assert/strict";
import type { World } from "./world.ts";

/** Takes the lock on a file from the descriptor of another process, as that process itself could. */
export async function unlockInside(world: World, pid: number, file: string): Promise<void> {
  const script = new URL("./unlock_inside.ts", import.meta.url).pathname;
  const done = await world.execute(Deno.execPath(), ["run", "-A", "--no-config", script, `${pid}`, file]);
  assert.equal(done.code, 0, done.stderr);
}
