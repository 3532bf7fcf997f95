import assert from "node:assert/strict";
import type { FailpointName } from "../../lib/failpoint_names.ts";
import { done, json, slotsOf } from "../support/migration_world.ts";
import { until } from "../support/until.ts";
import { MigrationScene, type Side, type Stage } from "./migration_scene.ts";

/** What is killed. */
export type Kill =
  /** A command of lockvisor at one of its failpoints. */
  | {
    kind: "command";
    on: Side;
    command: MigrateCommand;
    at: FailpointName;
    passage?: number;
    when?: "sending-begins";
  }
  /** The guest's process on one host, or on both. */
  | { kind: "process"; on: Side | "both" }
  /** The connection between both QEMUs: it breaks, or nothing goes through it any more. */
  | { kind: "connection"; how: "broken" | "stalled" };

/** A command of a migration that is killed. */
export type MigrateCommand = "prepare" | "in" | "complete" | "cancel";

/** What the operator does on a host; `again` is the command that was killed. */
export type StepAction = "again" | "cleanup" | "complete" | "cancel" | "gc";

/** A step of the operator, with which exit status it ends if not with 0, and what QEMU is like there then, if that matters. */
export type Step = readonly [Side, StepAction, number?, string?];

/** One row of the table. */
export interface MigrationCrash {
  guest: "qemu" | "sleep";
  stage: Stage;
  /** The destination has been cancelled before. */
  before?: "destination-cancelled";
  kill: Kill;
  /** What comes by itself then. */
  then?: { source?: string; destination?: "ended" };
  operator: readonly Step[];
  /** Where the guest runs in the end. */
  ends: Side | "nowhere";
}

/** What a row was like when it was played. */
export interface PlayedCrash {
  crash: MigrationCrash;
  source: string;
  destination: string;
}

/** Plays a row: to its stage, the kill, a look, the operator's steps, and what must be true all the time and at the end. */
export async function playMigrationCrash(crash: MigrationCrash): Promise<PlayedCrash> {
  await using scene = await MigrationScene.create(crash.guest);
  await scene.reach(crash.stage);
  if (crash.before !== undefined) await done(scene.host("destination"), ["migrate", "cancel", "vm1"]);
  await strike(scene, crash.kill);
  await comeToPass(scene, crash.then ?? {});
  await assertNobodyWins(scene, "after the crash");
  const source = await scene.seen("source");
  const destination = await scene.seen("destination");
  for (const step of crash.operator) await take(scene, crash, step);
  await assertAtRest(scene, crash.ends);
  return { crash, source, destination };
}

async function strike(scene: MigrationScene, kill: Kill): Promise<void> {
  switch (kill.kind) {
    case "command": {
      const args = argumentsOf(scene, kill.command);
      const point = `${kill.at}:${kill.passage ?? 1}`;
      if (kill.when === "sending-begins") return await scene.killedWhileSendingBegins(args, point);
      return await scene.killedAt(kill.on, args, point);
    }
    case "process":
      await Promise.all(
        (["source", "destination"] as const).filter((side) => kill.on === side || kill.on === "both")
          .map((side) => scene.kill(side)),
      );
      return;
    case "connection":
      return kill.how === "broken" ? scene.relay!.cut() : scene.relay!.stall();
  }
}

function argumentsOf({ ticket, world: { source } }: MigrationScene, command: MigrateCommand): string[] {
  switch (command) {
    case "prepare":
      return ["migrate", "prepare", "vm1", "--to", "ssh://host-b", "--ticket", `${source.directory}/ticket`];
    case "in":
      return ["migrate", "in", "--ticket", ticket, "--", "true"];
    case "complete":
    case "cancel":
      return ["migrate", command, "vm1"];
  }
}

async function comeToPass(
  scene: MigrationScene,
  { source, destination }: NonNullable<MigrationCrash["then"]>,
): Promise<void> {
  if (source !== undefined) {
    await until(`the source's QEMU is ${source}`, async () => (await scene.qemus.source!.state()) === source);
  }
  if (destination === "ended") await until("the destination has ended", () => !scene.isLiving("destination"));
}

async function take(
  scene: MigrationScene,
  { kill }: MigrationCrash,
  [side, action, wanted = 0, qemu]: Step,
): Promise<void> {
  const command = action === "again" && kill.kind === "command" ? kill.command : action;
  if (command === "in" && wanted === 0) return await scene.comeIn();
  const args = command === "gc"
    ? ["gc"]
    : command === "cleanup"
    ? ["migrate", "cleanup", "--yes"]
    : argumentsOf(scene, command as MigrateCommand);
  const { code, stderr } = await scene.host(side).run(args);
  assert.equal(code, wanted, `${args.join(" ")} at the ${side}: ${stderr}`);
  if (qemu !== undefined) assert.equal(await scene.qemus[side]!.state(), qemu);
}

/** Where a process of the guest lives, nobody else gets its disk. */
async function assertNobodyWins(scene: MigrationScene, when: string): Promise<void> {
  if (!scene.isLiving("source") && !scene.isLiving("destination")) return;
  const tried = await scene.tryToStart();
  if (!scene.isLiving("source") && !scene.isLiving("destination")) return;
  assert.deepEqual(
    tried.map(({ code }) => code),
    [75, 75],
    `${when}: ${tried[0]!.stderr}${tried[1]!.stderr}`,
  );
}

async function assertAtRest(scene: MigrationScene, ends: MigrationCrash["ends"]): Promise<void> {
  const { world, contender, chronicle, counting } = scene;
  for (const side of ["source", "destination"] as const) {
    const { guests } = await json(scene.host(side), ["status"]);
    assert.deepEqual(
      guests.map(({ name, state, pid }: { name: string; state: string; pid: number }) => [name, state, pid]),
      side === ends ? [["vm1", "running", scene.guests[side]!.pid]] : [],
      `guests at the ${side}`,
    );
    assert.equal(scene.isLiving(side), side === ends, `whether it lives at the ${side}`);
  }
  assert.deepEqual(world.leftOvers(), [], "offers and notes of the migration");
  if (ends !== "nowhere") {
    const slots = [...slotsOf(scene.guests[ends]!.pid, world.lockspace).values()];
    assert.deepEqual(slots, ["ab", "ab", "ab", "ab"]);
    if (counting !== undefined) {
      const count = counting.count();
      await until("the guest writes on", () => counting.count() > count + 1);
    }
  }
  await contender.stop();
  assert.deepEqual([contender.faults, chronicle.overlaps()], [[], []]);
  assert.ok(contender.passes > 0);
  if (ends !== "nowhere") await scene.kill(ends);
  assert.equal(world.isFree(), true, "somebody has a lock, and no guest runs");
  const other = ends === "source" ? "destination" : "source";
  await done(scene.host(other), ["run", "--name", "vm1", "--disk", scene.disk, "--", "true"]);
  assert.deepEqual(scene.wins(), [], "what contenders have left behind");
  if (counting !== undefined) assert.equal(await counting.faults(), "");
}
