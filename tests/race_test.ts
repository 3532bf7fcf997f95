import assert from "node:assert/strict";
import { canLock, lockFiles } from "./support/kernel.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

const ROUNDS = Number(Deno.env.get("LOCKVISOR_RACE_ROUNDS") ?? 50);
const CONTENDERS = 20;

/** Numbers from 0 to 1 that a seed repeats: mulberry32. */
function randomFrom(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** How many processes wait for a flock on a file, by proc_locks(5). */
function waitersFor(inode: number | null): number {
  return Deno.readTextFileSync("/proc/locks").split("\n")
    .filter((line) => line.includes("-> FLOCK") && line.includes(`:${inode} `)).length;
}

Deno.test(`${ROUNDS} rounds of ${CONTENDERS} contenders for three disks in different orders have one winner each`, async () => {
  await using world = await World.create();
  const disks = await Promise.all(["a", "b", "c"].map((name) => world.disk(name)));
  const seed = Date.now() % 1_000_000;
  const random = randomFrom(seed);
  for (let round = 0; round < ROUNDS; round++) {
    const where = `round ${round}, seed ${seed}`;
    // All contenders wait for one lock of another kind; when it is given up, the kernel lets all of them go.
    using gate = await Deno.open(`${world.directory}/gate`, { create: true, write: true });
    await gate.lock(true);
    const winners = `${world.directory}/winners`;
    await Deno.mkdir(winners);
    const end = `${world.directory}/end`;
    await world.execute("mkfifo", [end]);
    const contenders = Array.from({ length: CONTENDERS }, (_, number) => {
      const order = [...disks].sort(() => random() - 0.5).flatMap((disk) => ["--disk", disk]);
      const command = `echo $$ > ${winners}/${number}; read line < ${end}`;
      return world.executeBehind(`${world.directory}/gate`, [
        "run",
        "--name",
        `vm${number}`,
        ...order,
        "--",
        "sh",
        "-c",
        command,
      ]);
    });
    const inode = (await gate.stat()).ino;
    await until(`all wait at the gate (${where})`, () => waitersFor(inode) === CONTENDERS);
    await gate.unlock();
    let ended = 0;
    for (const contender of contenders) contender.then(() => ended++);
    await until(`all but one are refused (${where})`, () => ended >= CONTENDERS - 1, 60_000);
    await until(
      `one runs (${where})`,
      () => ended === CONTENDERS || [...Deno.readDirSync(winners)].length > 0,
    );
    const won = Array.from(Deno.readDirSync(winners), (entry) => entry.name);
    assert.equal(won.length, 1, `${won.length} winners in ${where}`);
    const files = lockFiles(world.lockspace);
    const held = await Promise.all(files.map((name) => canLock(`${world.lockspace}/${name}`)));
    assert.equal(held.filter((free) => !free).length, 2 * (3 * 2 + 1), `locks held in ${where}`);
    await Deno.writeTextFile(end, "\n");
    const results = await Promise.all(contenders);
    const codes = results.map((result) => result.code).sort();
    assert.deepEqual(codes, [0, ...Array(CONTENDERS - 1).fill(75)], where);
    for (const { code, stderr } of results) {
      if (code === 75) assert.match(stderr, new RegExp(`is locked by guest "vm${won[0]}" \\(pid`), where);
    }
    await Deno.remove(end);
    await Deno.remove(winners, { recursive: true });
  }
  const files = lockFiles(world.lockspace);
  for (const name of files) {
    assert.ok(await canLock(`${world.lockspace}/${name}`), `${name} is free at the end`);
  }
  const others = Array.from(Deno.readDirSync(world.lockspace), (entry) => entry.name)
    .filter((name) => !/^[0-9a-f]{64}\.([abd])$/.test(name));
  assert.deepEqual(others, ["lockspace.json"], "nothing else is left in the lockspace");
  const inside = Array.from(Deno.readDirSync(world.lockspace)).filter((entry) => entry.isDirectory)
    .flatMap((entry) =>
      Array.from(Deno.readDirSync(`${world.lockspace}/${entry.name}`), (file) => file.name)
    );
  for (const name of inside) assert.match(name, /^state\.json$|^testhost\.[0-9a-f-]{36}\.json$/);
  assert.equal((await world.run(["status", "--json"])).stdout, '{"guests":[]}\n');
});
