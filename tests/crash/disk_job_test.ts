import assert from "node:assert/strict";
import { JobScene } from "../support/job_scene.ts";
import { settleJobs } from "../support/settle_jobs.ts";
import { until } from "../support/until.ts";
import { World } from "../support/world.ts";
import { DISK_JOBS, UNDO_POINTS } from "./disk_job_cases.ts";
import { killedAt, playDiskJob, REMEDIES } from "./disk_job_play.ts";

/** How many of the remedies are tried at each point; the others have their turn at the points before and after. */
const ROUNDS = Number(Deno.env.get("LOCKVISOR_JOB_REMEDIES") ?? 2);

for (const [kind, scenario] of DISK_JOBS.entries()) {
  for (let round = 0; round < ROUNDS; round++) {
    Deno.test(`${scenario.title}, killed at each point, round ${round + 1}`, (test) =>
      playDiskJob(
        scenario,
        (index) => REMEDIES[(index + kind + round) % REMEDIES.length]!,
        (name, action) => test.step(name, action),
      ));
  }
}

/** So slow that there is time to do something meanwhile. */
const SLOWLY = ["--speed", "1M"];

/** What a job makes exclusive, while it runs. */
const RUNNING = [
  { args: ["mirror", "vda", "t"], made: "t", after: ["t"] },
  { args: ["backup", "vda", "t"], made: "t", after: ["over", "top"] },
  { args: ["commit", "vda"], made: "top", after: ["top"] },
];

for (const { args, made, after } of RUNNING) {
  Deno.test(`disk ${args[0]}, killed while QEMU copies: that is left and told, and the same command takes it up`, async () => {
    await using world = await World.create();
    const scene = await JobScene.start(world, { data: "much", backing: ["over"] });
    await scene.during([...args, ...SLOWLY], async (job) => {
      await scene.jobBegun();
      job.kill("SIGKILL");
      await job.finished();
    });
    const { done, warnings } = await settleJobs(world);
    assert.deepEqual(done, []);
    assert.match(warnings.join(), /goes on, and its command has ended: .* lockvisor disk abort vm1 vda$/);
    assert.equal((await scene.locked())[made], "exclusive");
    const other = await scene.job("backup", "vda", "elsewhere");
    assert.equal(other.code, 75, other.stderr);
    assert.match(other.stderr, /under way whose command has ended: give that command again/);
    await scene.during(args, async (job) => {
      await until("the job has its new command", () => ownerOf(scene) === job.pid);
      await scene.ask((qemu) => qemu.execute("block-job-set-speed", { device: jobOf(scene).id, speed: 0 }));
      const { code, stderr } = await job.finished();
      assert.equal(code, 0, stderr);
    });
    await scene.assertSettled(await scene.open());
    assert.deepEqual(Object.keys(await scene.open()).sort(), after);
    await scene.assertWhole(args[0] === "backup" ? "over" : made);
  });

  Deno.test(`disk ${args[0]}, killed while QEMU copies: an abort that is killed at each point undoes it`, async (test) => {
    await using world = await World.create();
    const scene = await JobScene.start(world, { data: "much", backing: ["over"] });
    for (const [index, point] of UNDO_POINTS.entries()) {
      await test.step(point, async () => {
        await scene.during([...args, ...SLOWLY], async (job) => {
          await scene.jobBegun();
          job.kill("SIGKILL");
          await job.finished();
        });
        await killedAt(scene, point, ["abort", "vda"]);
        await scene.goesOn();
        if (index % 2 === 0) {
          const { code, stdout, stderr } = await scene.job("abort", "vda", "--json");
          assert.deepEqual([code, JSON.parse(stdout).outcome], [0, "aborted"], stderr);
        } else {
          const { done } = await settleJobs(world);
          assert.match(done.join(), /^undid the /);
        }
        await scene.assertSettled({
          top: args[0] === "commit" ? "exclusive" : "readonly",
          over: "exclusive",
        });
        assert.equal(await scene.has("t"), false);
      });
    }
    await scene.goesOn();
    await scene.assertWhole("over");
  });
}

function jobOf(scene: JobScene): { id: string; owner: { pid: number } } {
  return scene.record().diskJobs![0] as ReturnType<typeof jobOf>;
}

function ownerOf(scene: JobScene): number {
  return jobOf(scene).owner.pid;
}
