import assert from "node:assert/strict";
import { gc, generation, notes, past } from "./support/garbage.ts";
import { lockFiles } from "./support/kernel.ts";
import { BINARY, World } from "./support/world.ts";

const MOST_ATTEMPTS = 10;

for (let question = 1; question <= 6; question++) {
  Deno.test(`gc between the opening of a lock file and lock request ${question} of a start: it starts over`, async () => {
    await using world = await World.create();
    const disk = await world.disk("a");
    await past(world, "vm1", disk);
    // The kernel carries the request out late: by then gc has removed the file that the start has open.
    const late = `inject=flock:delay_enter=400000:when=${question}`;
    const tracer = ["-f", "-qq", "-o", `${world.directory}/trace`, "-e", "trace=flock", "-e", late];
    const guest = ["sh", "-c", "readlink /proc/$$/fd/* | grep /lockspace/"];
    // On a busy machine gc may come too late for the request that is late: then once more.
    for (let attempt = 1;; attempt++) {
      let over = false;
      const removed: string[] = [];
      const starting = world.execute("strace", [
        ...tracer,
        ...[BINARY, "run", "--name", "vm1", "--disk", disk, "--", ...guest],
      ]);
      const collecting = (async () => {
        while (!over) removed.push(...(await gc(world)).removed);
      })();
      const { code, stdout, stderr } = await starting;
      over = true;
      await collecting;
      assert.equal(code, 0, stderr);
      const held = stdout.trimEnd().split("\n");
      assert.equal(held.length, 6);
      for (const path of held) assert.match(path, /[0-9a-f]{64}\.[ab]$/, "a file that its name leads to");
      assert.equal(await generation(world, disk), 1 + attempt);
      if (removed.some((path) => /\.[ab]$/.test(path))) return;
      assert.ok(attempt < MOST_ATTEMPTS, "gc was at work meanwhile");
    }
  });
}

/** How often each of six workers starts a guest; `deno task soak` has them do it more often. */
const ROUNDS = Number(Deno.env.get("LOCKVISOR_GC_ROUNDS") ?? 50);

Deno.test("gc against starts at the same moment: one holder, every grant counted, nobody refused for good", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const tally = `${world.directory}/tally`;
  await Deno.writeTextFile(tally, "");
  // The guest proves that it is alone: the directory can be made by one at a time.
  const alone = 'mkdir "$0.alone" || exit 99; echo x >> "$0"; rmdir "$0.alone"';
  let granted = 0;
  let over = false;
  const starts = Array.from({ length: 6 }, async (_, worker) => {
    for (let round = 0; round < ROUNDS; round++) {
      const result = await world.run(
        // Even workers wait for their turn, odd ones are refused while somebody else is in.
        ["run", "--name", `vm${worker}`, "--disk", disk, ...worker % 2 === 0 ? ["--wait=60s"] : []].concat(
          ["--", "sh", "-c", alone, tally],
        ),
      );
      if (result.code === 0) granted++;
      else assert.equal(result.code, 75, result.stderr);
      if (worker % 2 === 0) assert.equal(result.code, 0, result.stderr);
    }
  });
  let collections = 0;
  const collectors = Array.from({ length: 2 }, async () => {
    while (!over) {
      const { problems } = await gc(world);
      assert.deepEqual(problems, []);
      collections++;
    }
  });
  try {
    await Promise.all(starts);
  } finally {
    over = true;
  }
  await Promise.all(collectors);
  assert.ok(collections > ROUNDS, `${collections} collections`);
  assert.ok(granted >= 3 * ROUNDS, `${granted} granted`);
  assert.equal((await Deno.readTextFile(tally)).length, 2 * granted);
  assert.equal(await generation(world, disk), granted);
  await gc(world);
  assert.deepEqual([lockFiles(world.lockspace), notes(world)], [[], []]);
});
