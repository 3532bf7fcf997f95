import assert from "node:assert/strict";
import { JobScene } from "../support/job_scene.ts";
import { settleJobs } from "../support/settle_jobs.ts";
import { until } from "../support/until.ts";
import { World } from "../support/world.ts";
import { FAILPOINT_BINARY } from "./crash.ts";
import type { DiskJobScenario } from "./disk_job_cases.ts";

/** What is done after the kill. */
export type Remedy = "reconcile" | "same command" | "abort";

export const REMEDIES: readonly Remedy[] = ["reconcile", "same command", "abort"];

/** Plays a scenario at all of its points, one after the other in one guest, which must be whole at the end. */
export async function playDiskJob(
  scenario: DiskJobScenario,
  remedyAt: (index: number) => Remedy,
  step: (name: string, action: () => Promise<void>) => Promise<unknown>,
): Promise<void> {
  await using world = await World.create();
  const scene = await JobScene.start(world, { backing: scenario.backing });
  const play = new DiskJobPlay(scene, scenario);
  for (const [index, point] of scenario.points.entries()) {
    const remedy = remedyAt(index);
    await step(`${point}, ${remedy}`, () => play.at(point, remedy));
  }
  await scene.goesOn();
  await scene.assertWhole(play.image);
}

/** Runs lockvisor with an armed failpoint, which must be reached. */
export async function killedAt(scene: JobScene, point: string, args: string[]): Promise<void> {
  const { signal, code, stderr } = await scene.world.execute(FAILPOINT_BINARY, [
    "disk",
    args[0]!,
    "vm1",
    ...args.slice(1),
  ], {
    env: { LOCKVISOR_FAILPOINT: point },
  });
  assert.equal(signal, "SIGKILL", `${point} was not reached: exit status ${code}: ${stderr}`);
}

class DiskJobPlay {
  /** The file that the guest writes. */
  image: string;
  readonly #scene: JobScene;
  readonly #scenario: DiskJobScenario;
  #names = 0;

  constructor(scene: JobScene, scenario: DiskJobScenario) {
    this.#scene = scene;
    this.#scenario = scenario;
    this.image = scenario.backing.at(-1) ?? "top";
  }

  async at(point: string, remedy: Remedy): Promise<void> {
    const { args, back, leavesCopy } = this.#scenario;
    const words = new Map([["IMAGE", this.image], ["TARGET", this.#newName()], ["NEXT", this.#newName()]]);
    const inWords = (texts: readonly string[]) => texts.map((text) => words.get(text) ?? text);
    const target = words.get("TARGET")!;
    const command = inWords(args);
    await killedAt(this.#scene, point, command);
    await this.#assertOpenIsLocked();
    await this.#scene.goesOn();
    const outcome = await this.#remedy(remedy, command);
    const isDone = await this.#isDone(inWords, outcome);
    await this.#assertSettled(inWords(isDone ? this.#scenario.after : this.#scenario.before));
    assert.equal(
      await this.#scene.has(target),
      isDone && args.includes("TARGET"),
      "whether the target is there",
    );
    if (remedy === "same command") assert.ok(isDone);
    if (remedy === "reconcile" && !isDone) {
      await this.#must(command);
      await this.#assertSettled(inWords(this.#scenario.after));
    }
    const wasDone = isDone || remedy === "reconcile";
    if (wasDone && leavesCopy) await this.#assertCopy(target);
    if (!wasDone) return;
    const left = this.image;
    this.image = inWords([this.#scenario.written])[0]!;
    if (back !== undefined) {
      await this.#must(inWords(back.args));
      this.image = inWords([back.written])[0]!;
    }
    for (const unused of [left, target]) {
      if (unused !== this.image && unused !== "top" && await this.#scene.has(unused)) {
        await Deno.remove(this.#scene.path(unused));
      }
    }
  }

  #newName(): string {
    return `image${++this.#names}`;
  }

  async #must([command, ...args]: string[]): Promise<void> {
    const { code, stderr } = await this.#scene.job(command!, ...args);
    assert.equal(code, 0, `${command} ${args.join(" ")}: ${stderr}`);
  }

  /** @returns whether the remedy says that the job has come about */
  async #remedy(remedy: Remedy, command: string[]): Promise<boolean> {
    if (remedy === "same command") {
      await this.#must(command);
      return true;
    }
    if (remedy === "abort") {
      const { code, stdout, stderr } = await this.#scene.job("abort", "vda", "--json");
      assert.equal(code, 0, stderr);
      return JSON.parse(stdout).outcome === "done";
    }
    const settled = await settleJobs(this.#scene.world);
    if (settled.warnings.some((line) => /its command has ended/.test(line))) {
      // What QEMU works on is left: the same command waits for it.
      await this.#must(command);
      return true;
    }
    return settled.done.some((line) => line.startsWith("finished "));
  }

  /** The guest's own word counts, where it tells. */
  async #isDone(inWords: (texts: readonly string[]) => string[], told: boolean): Promise<boolean> {
    if (this.#scenario.leavesCopy) return told;
    const open = Object.keys(await this.#scene.open()).sort();
    return JSON.stringify(open) === JSON.stringify(inWords(this.#scenario.after).sort());
  }

  async #assertSettled(files: string[]): Promise<void> {
    const open = await this.#scene.open();
    assert.deepEqual(Object.keys(open).sort(), [...files].sort());
    await this.#scene.assertSettled(open);
  }

  /** Right after the kill nobody else gets what QEMU has open, and nobody may write what it reads. */
  async #assertOpenIsLocked(): Promise<void> {
    const open = await this.#scene.open();
    for (const [name, access] of Object.entries(open)) {
      const path = this.#scene.path(name);
      const asked = access === "exclusive" ? `${path},access=readonly` : path;
      const { code } = await this.#scene.world.run(["check", "--disk", asked]);
      // A file that is opened and not written yet, or not any more, needs no lock.
      if (code !== 1) {
        await until(
          `${name} is not open any more, or locked`,
          async () => (await this.#scene.open())[name] !== access,
          100,
        );
      }
    }
  }

  /** A copy that is said to be whole is whole. */
  async #assertCopy(name: string): Promise<void> {
    const path = this.#scene.path(name);
    const { code, stderr } = await this.#scene.world.execute("qemu-img", ["check", "-q", path]);
    assert.equal(code, 0, stderr);
    assert.ok(await this.#scene.counter(path) > 0);
  }
}
