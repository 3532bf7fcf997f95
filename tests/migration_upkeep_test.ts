import assert from "node:assert/strict";
import { breakKey } from "../lib/lockspace/break_key.ts";
import { readNotes } from "../lib/lockspace/holder_note.ts";
import { type Lockspace, openLockspace } from "../lib/lockspace/lockspace.ts";
import { MOVING_GUESTS } from "./conformance/candidate.ts";
import { gc, notes } from "./support/garbage.ts";
import { lockFiles } from "./support/kernel.ts";
import { statusIn, TwoHosts } from "./support/two_hosts.ts";
import type { World } from "./support/world.ts";

/*
 * What is beside the keys of guests on their way: gc leaves alone what a migration still needs, and nothing outlives it.
 */

/** The files beside the keys of a world's lockspace that one side or the other of a migration has left. */
function beside({ lockspace }: World, end: ".migration.json" | ".incoming.json"): string[] {
  return Array.from(Deno.readDirSync(lockspace)).filter(({ isDirectory }) => isDirectory)
    .flatMap(({ name }) =>
      Array.from(Deno.readDirSync(`${lockspace}/${name}`), (file) => `${name}/${file.name}`)
    )
    .filter((file) => file.endsWith(end)).sort();
}

function keyNotes(lockspace: Lockspace, key: string) {
  const holders = readNotes(lockspace, key).flatMap((file) =>
    file.kind === "note" ? [{ ...file.note, pid: file.note.process.pid, life: "dead" as const }] : []
  );
  return { holders };
}

for (const hosts of ["two", "one-directory"] as const) {
  Deno.test(`gc, ${hosts}: offers and notes stay as long as a side of the migration lives`, async () => {
    await using scene = await TwoHosts.create(hosts);
    const { source, destination } = scene;
    const leaving = await scene.startSleeping();
    await scene.prepare();
    const offers = beside(source, ".migration.json");
    assert.equal(offers.length, 4, "beside each key of the source: the guest's own, and three of its disk");
    assert.deepEqual((await gc(source)).removed, []);
    assert.deepEqual(beside(source, ".migration.json"), offers);

    const coming = await scene.comeInSleeping();
    const incoming = beside(source, ".incoming.json");
    assert.equal(incoming.length, 4);
    for (const world of [source, destination]) assert.deepEqual((await gc(world)).removed, []);
    assert.deepEqual([beside(source, ".migration.json"), beside(source, ".incoming.json")], [
      offers,
      incoming,
    ]);

    await leaving.kill();
    for (const world of [source, destination]) {
      const { removed } = await gc(world);
      for (const file of removed) assert.doesNotMatch(file, /\.incoming\.json$/, "the destination lives");
    }
    assert.equal((await scene.end("complete", "out")).code, 0);
    assert.equal((await scene.end("complete", "in")).code, 0);
    assert.deepEqual([beside(source, ".migration.json"), beside(source, ".incoming.json")], [[], []]);
    await coming.kill();
  });
}

Deno.test("gc removes the offers and notes of a migration of which nobody is left", async () => {
  await using scene = await TwoHosts.create();
  const { source } = scene;
  const leaving = await scene.startSleeping();
  await scene.prepare();
  const coming = await scene.comeInSleeping();
  await leaving.kill();
  await coming.kill();
  assert.deepEqual((await statusIn(source)).map(({ state }) => state), ["stopped"]);
  const { removed } = await gc(source);
  assert.equal(removed.filter((file) => file.endsWith(".migration.json")).length, 4);
  assert.equal(removed.filter((file) => file.endsWith(".incoming.json")).length, 4);
  assert.deepEqual([lockFiles(source.lockspace), notes(source)], [[], []]);
  const refused = await scene.destination.run(["migrate", "in", "--ticket", scene.ticket, "--", "true"]);
  assert.equal(refused.code, 65);
  assert.match(refused.stderr, /is stale: its migration was cancelled or completed/);
});

Deno.test("a source that goes on tells of nobody who came in by its ticket and has died", async () => {
  await using scene = await TwoHosts.create();
  const { source } = scene;
  await scene.startSleeping();
  await scene.prepare();
  await (await scene.comeInSleeping()).kill();
  assert.equal(beside(source, ".incoming.json").length, 4);
  assert.equal((await scene.end("cancel", "out")).code, 0);
  const shown = JSON.parse((await source.run(["inspect", "--json", scene.disk])).stdout);
  assert.equal(shown.holders.length, 1, "one holder: the guest that stays");
  // The destination's own key on its host alone is for its next holder to tidy.
  assert.equal(beside(source, ".incoming.json").length, 1);
});

Deno.test("a break takes the notes of both sides of a migration away", async () => {
  await using scene = await TwoHosts.create();
  const { source } = scene;
  const guests = [await scene.startSleeping()];
  await scene.prepare();
  guests.push(await scene.comeInSleeping());
  for (const guest of guests) await guest.kill();
  const lockspace = openLockspace({ path: source.lockspace, origin: "configured" }, Deno.uid() ?? 0);
  const [offer] = beside(source, ".incoming.json");
  const key = offer!.slice(0, 64);
  const { holders } = keyNotes(lockspace, key);
  assert.ok(holders.length > 0);
  breakKey(lockspace, key, holders);
  assert.deepEqual(keyNotes(lockspace, key).holders, []);
});

Deno.test("doctor and status know guests on their way; neither side is without a record", async () => {
  await using scene = await TwoHosts.create("one-directory");
  const { source } = scene;
  await scene.startSleeping();
  await scene.prepare();
  await scene.comeInSleeping();
  const states = (await statusIn(source)).map(({ state }) => state);
  assert.deepEqual(states, ["migrating-out", "incoming"]);
  const named = JSON.parse((await source.run(["status", "--json", "vm1"])).stdout).guests;
  assert.deepEqual(named.map(({ state }: { state: string }) => state), states, "both are this guest");
  const { checks } = JSON.parse((await source.run(["doctor", "--json"])).stdout);
  const guests = checks.find(({ check }: { check: string }) => check === "guests");
  assert.deepEqual([guests.verdict, guests.text], ["ok", "2 guests, none has lost a lock"]);
});

Deno.test("doctor tells of a migration whose side here has ended; that side has lost no lock", async () => {
  await using scene = await TwoHosts.create();
  const { source } = scene;
  const leaving = await scene.startSleeping();
  await scene.prepare();
  await leaving.kill();
  const [guest] = await statusIn(source);
  assert.deepEqual([guest!.state, guest!.locks], ["stopped", { held: 0, unknown: 0, lost: 0, total: 4 }]);
  const { checks } = JSON.parse((await source.run(["doctor", "--json"])).stdout);
  const guests = checks.find(({ check }: { check: string }) => check === "guests");
  assert.equal(guests.verdict, "warning");
  assert.match(
    guests.text,
    /guest "vm1" has ended in the middle of a migration; .*lockvisor migrate cleanup/,
  );
  assert.equal((await source.run(["migrate", "cleanup", "--yes"])).code, 0);
  assert.deepEqual(await statusIn(source), []);
});

Deno.test("a ticket is good for a week at most", async () => {
  await using scene = await TwoHosts.create();
  await scene.startSleeping();
  const args = ["migrate", "prepare", "vm1", "--to", "ssh://hv2", "--ticket", scene.ticket, "--expires"];
  for (const long of ["169h", "99999999999h"]) {
    const { code, stderr } = await scene.source.run([...args, long]);
    assert.deepEqual([code, /longer than a week/.test(stderr)], [64, true], stderr);
  }
  assert.equal((await scene.source.run([...args, "168h"])).code, 0);
});

Deno.test("migrate status: a guest whose plugin has vanished does not hide the others", async () => {
  await using scene = await TwoHosts.create();
  const { source } = scene;
  const plugin = await MOVING_GUESTS.install(source);
  await source.startRunning(["run", "--plugin", plugin, "--name", "vm2", "--", "sleep", "600"]);
  await scene.startSleeping();
  await scene.prepare();
  const other = await source.run(["migrate", "prepare", "vm2", "--to", "ssh://hv2"]);
  assert.equal(other.code, 0, other.stderr);
  await Deno.remove(plugin);
  const { code, stdout, stderr } = await source.run(["migrate", "status", "--json"]);
  assert.equal(code, 0, stderr);
  const { migrations } = JSON.parse(stdout);
  const told = migrations.map(({ guest, next }: { guest: { name: string }; next: { why: string } }) => [
    guest.name,
    /there is no such file/.test(next.why) ? "no plugin" : "known",
  ]);
  assert.deepEqual(told.sort(), [["vm1", "known"], ["vm2", "no plugin"]]);
  const cleaned = await source.run(["migrate", "cleanup", "--yes"]);
  assert.equal(cleaned.code, 0, cleaned.stderr);
});
