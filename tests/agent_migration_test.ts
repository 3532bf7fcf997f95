import assert from "node:assert/strict";
import { GuestStore } from "../lib/manager/guest_store.ts";
import { Agent } from "./support/agent.ts";
import { guestsOf, Told, typeOf } from "./support/agent_scene.ts";
import { flockedFiles } from "./support/kernel.ts";
import { statusIn, TwoHosts } from "./support/two_hosts.ts";
import { until } from "./support/until.ts";
import type { World } from "./support/world.ts";

/*
 * What the agent does about guests on their way: it takes what they gave up for no loss, tells what happens, and ends what
 * can be ended.
 */

const OFTEN = ["--audit-interval", "100ms"];

/** Waits until the agent has looked at all locks some more times. */
async function lookedAgain(agent: Agent, times = 4): Promise<void> {
  const count = async () =>
    Number(/^lockvisor_audits_total (\d+)/m.exec((await agent.get("/metrics")).body)?.[1]);
  const before = await count();
  await until(`${times} more looks`, async () => await count() >= before + times);
}

/** What must not be told of a guest that is well. */
function faults(told: Told): string[] {
  const wrong = ["lock-lost", "action-taken", "problem", "guest-mended"];
  return told.all.filter((event) => wrong.includes(typeOf(event))).map(({ message }) => message);
}

function migrationOf(world: World): unknown {
  return new GuestStore(world.runtimeDir).list().map((entry) =>
    entry.kind === "record" && entry.record.migration
  );
}

Deno.test("agent: a migration on two hosts is told by both agents, costs no lock, and is ended by the destination's", async () => {
  await using scene = await TwoHosts.create();
  await using source = await Agent.start(scene.source, OFTEN);
  await using destination = await Agent.start(scene.destination, OFTEN);
  const [left, came] = [new Told(source), new Told(destination)];
  const leaving = await scene.startQemu("--on-lock-failure", "kill");
  await scene.prepare();
  await until("it is told that it leaves", () => left.types("vm1").includes("guest-migrating"));
  await lookedAgain(source);
  const coming = await scene.comeInQemu();
  await until("it is told that it comes", () => came.types("vm1").includes("guest-migrating"));
  await Promise.all([lookedAgain(source), lookedAgain(destination)]);
  assert.deepEqual((await guestsOf(source)).map(({ state }) => state), ["migrating-out"]);
  assert.deepEqual((await guestsOf(destination)).map(({ state }) => state), ["incoming"]);
  assert.match((await source.get("/metrics")).body, /^lockvisor_guests\{state="migrating-out"\} 1$/m);
  assert.match((await destination.get("/metrics")).body, /^lockvisor_guests\{state="incoming"\} 1$/m);
  await scene.send();
  await lookedAgain(destination);
  assert.deepEqual(
    (await statusIn(scene.destination)).map(({ state }) => state),
    ["incoming"],
    "nobody has said that it is well there",
  );
  assert.equal((await scene.end("complete", "in")).code, 75);
  await lookedAgain(destination);
  assert.equal(await scene.runState("in"), "running");
  assert.equal((await scene.end("complete", "out")).code, 0);
  await until("it is told that it has come", () => came.types("vm1").includes("guest-migrated"));
  const files = flockedFiles(coming.pid);
  assert.equal(files.filter((file) => file.endsWith(".a")).length, files.length / 2);
  assert.deepEqual(migrationOf(scene.destination), [undefined]);
  const again = await scene.end("complete", "in");
  assert.deepEqual([again.code, again.outcome], [0, "at-rest"]);
  await lookedAgain(destination);
  await until("its end at the source is told", () => left.types("vm1").includes("guest-ended"));
  assert.deepEqual(left.types("vm1"), ["guest-started", "lock-granted", "guest-migrating", "guest-ended"]);
  assert.deepEqual(came.types("vm1"), ["guest-migrating", "guest-migrating", "guest-migrated"]);
  assert.match(
    left.of("guest-ended")[0]!.message,
    /has ended here \(process \d+\) on its way to ssh:\/\/hv2/,
  );
  assert.deepEqual([faults(left), faults(came)], [[], []]);
  await leaving.kill();
});

Deno.test("agent: a migration that is cancelled is told, and the guest is not paused for what it had given up", async () => {
  await using scene = await TwoHosts.create();
  await using source = await Agent.start(scene.source, OFTEN);
  const told = new Told(source);
  await scene.startQemu();
  await scene.prepare();
  await scene.comeInQemu();
  await lookedAgain(source);
  assert.equal((await scene.end("cancel", "in")).code, 0);
  await lookedAgain(source);
  assert.equal((await scene.end("cancel", "out")).code, 0);
  await until("that it stays is told", () => told.types("vm1").includes("migration-cancelled"));
  await lookedAgain(source);
  assert.equal(await scene.runState("out"), "running");
  assert.deepEqual(told.types("vm1"), [
    "guest-started",
    "lock-granted",
    "guest-migrating",
    "migration-cancelled",
  ]);
  assert.deepEqual(faults(told), []);
});

Deno.test("agent: the source ends on its own, and its destination is not taken for a child that it forked", async () => {
  await using scene = await TwoHosts.create();
  await using source = await Agent.start(scene.source, OFTEN);
  const told = new Told(source);
  const leaving = await scene.startSleeping();
  await scene.prepare();
  await scene.comeInSleeping();
  await until("it is told that it leaves", () => told.types("vm1").includes("guest-migrating"));
  await leaving.kill();
  await until("its end is told", () => told.types("vm1").includes("guest-ended"));
  await lookedAgain(source);
  // Its record leads to what it has left beside its keys, until it is completed.
  assert.deepEqual((await statusIn(scene.source)).map(({ state }) => state), ["stopped"]);
  assert.deepEqual((await statusIn(scene.destination)).map(({ state }) => state), ["incoming"]);
  assert.equal((await scene.end("complete", "out")).code, 0);
  assert.deepEqual(await statusIn(scene.source), []);
  assert.deepEqual(faults(told), []);
});

Deno.test("agent: a guest that moves within its directory is shown twice, and taken over once it has moved", async () => {
  await using scene = await TwoHosts.create("one-directory");
  await using agent = await Agent.start(scene.source, OFTEN);
  const told = new Told(agent);
  await scene.startQemu();
  await scene.prepare();
  const coming = await scene.comeInQemu();
  await lookedAgain(agent);
  const states = (await guestsOf(agent)).map(({ state }) => state);
  assert.deepEqual(states, ["migrating-out", "incoming"]);
  assert.equal((await agent.get("/v1/guests/vm1")).status, 200);
  await scene.send();
  assert.equal((await scene.end("complete", "in")).code, 75);
  assert.equal((await scene.end("complete", "out")).code, 0);
  const done = await scene.end("complete", "in");
  assert.deepEqual([done.code, done.outcome], [0, "completed"]);
  await until(
    "it is told as a guest of its own",
    () => told.types("vm1").filter((type) => type === "guest-started").length === 2,
  );
  await lookedAgain(agent);
  const [guest, ...others] = await guestsOf(agent);
  assert.deepEqual([guest!.state, guest!.pid, others], ["running", coming.pid, []]);
  assert.deepEqual(faults(told), []);
});

Deno.test("agent: one that starts while a guest is on its way finds it so, and has nothing to mend", async () => {
  await using scene = await TwoHosts.create();
  await scene.startSleeping();
  await scene.prepare();
  await scene.comeInSleeping();
  for (
    const [world, says] of [[scene.source, /is migrating to ssh:\/\/hv2/], [
      scene.destination,
      /is coming in from/,
    ]] as const
  ) {
    await using agent = await Agent.start(world, OFTEN);
    const told = new Told(agent);
    await until("it is found", () => told.types("vm1").length > 0);
    await lookedAgain(agent);
    assert.deepEqual(told.types("vm1"), ["guest-found"]);
    assert.match(told.of("guest-found")[0]!.message, says);
    assert.deepEqual(faults(told), []);
  }
});

Deno.test("agent: records that are lost on both sides are made again, and the migration goes on", async () => {
  await using scene = await TwoHosts.create();
  await using source = await Agent.start(scene.source, OFTEN);
  await using destination = await Agent.start(scene.destination, OFTEN);
  const leaving = await scene.startSleeping();
  await scene.prepare();
  await scene.comeInSleeping();
  await Promise.all([lookedAgain(source), lookedAgain(destination)]);
  const before = [migrationOf(scene.source), migrationOf(scene.destination)];
  for (const world of [scene.source, scene.destination]) {
    await Deno.remove(`${world.runtimeDir}/guests`, { recursive: true });
  }
  await until("the records are there again", () => {
    return [scene.source, scene.destination].every((world) =>
      new GuestStore(world.runtimeDir).list().length === 1
    );
  });
  assert.deepEqual([migrationOf(scene.source), migrationOf(scene.destination)], before);
  assert.equal((await scene.end("complete", "in")).code, 75);
  await leaving.kill();
  await until("it has all its locks", () => (migrationOf(scene.destination) as unknown[])[0] === undefined);
});

Deno.test("migrate complete --wait at the destination waits for a source in the same directory, and lets it work", async () => {
  await using scene = await TwoHosts.create("one-directory");
  await scene.startQemu();
  await scene.prepare();
  await scene.comeInQemu();
  await scene.send();
  const waiting = scene.end("complete", "in", "--wait=60s");
  await until(
    "it has begun to wait",
    () => (migrationOf(scene.source) as { arrived?: true }[])[1]?.arrived === true,
  );
  let left: number | undefined;
  scene.end("complete", "out").then(({ code }) => left = code);
  await until("the source is completed", () => left !== undefined);
  assert.equal(left, 0);
  const done = await waiting;
  assert.deepEqual([done.code, done.outcome], [0, "completed"], done.stderr);
});
