import assert from "node:assert/strict";
import fc from "fast-check";
import { LockvisorError } from "../../lib/errors.ts";
import { ManagerProcess, type RemoteManager } from "../support/manager_process.ts";
import { World } from "../support/world.ts";
import type { Candidate } from "./candidate.ts";
import { isLeaseHeld } from "./kernel_view.ts";
import { attachTo, recordOf, startGuest } from "./running_guest.ts";

/** What is to be believed of a guest that runs, by the calls alone. */
interface Model {
  /** Leases that it has, those that a pause has given up included. */
  leases: Set<string>;
  givenUp: Set<string>;
  state: "started" | "running" | "paused";
}

type Step =
  | { call: "acquire" | "release"; leases: string[] }
  | { call: "pause"; locks: "kept" | "released" }
  | { call: "resume" | "inquire" | "shutdown" | "attach anew" };

const lease = fc.constantFrom("test:a", "test:b", "test:c");
const steps: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    call: fc.constantFrom("acquire" as const, "release" as const),
    leases: fc.uniqueArray(lease, { minLength: 1, maxLength: 2 }),
  }),
  fc.record({
    call: fc.constant("pause" as const),
    locks: fc.constantFrom("kept" as const, "released" as const),
  }),
  fc.record({
    call: fc.constantFrom("resume" as const, "inquire" as const, "shutdown" as const, "attach anew" as const),
  }),
);

/** Ways into what takes several steps; by chance alone few sequences would get there. */
const beginnings: fc.Arbitrary<Step[]> = fc.constantFrom<Step[][]>(
  [],
  [{ call: "acquire", leases: ["test:b", "test:c"] }],
  [{ call: "acquire", leases: ["test:b"] }, { call: "pause", locks: "released" }],
  [{ call: "pause", locks: "released" }, { call: "acquire", leases: ["test:b"] }],
);

/** What becomes of a step, by the model, which it changes. */
function foresee(step: Step, model: Model, { definition: { capabilities }, keepsOut }: Candidate): string {
  const locksResources = keepsOut === "resources";
  switch (step.call) {
    case "shutdown":
      return "locked"; // the guest runs
    case "attach anew":
      return "done";
    case "acquire": {
      if (!capabilities.hotplug) return "unavailable";
      if (step.leases.some((each) => model.givenUp.has(each))) return "data"; // resume first
      for (const each of step.leases) model.leases.add(each);
      return "done";
    }
    case "release":
      if (!capabilities.hotplug) return "unavailable";
      for (const each of step.leases) {
        model.leases.delete(each);
        model.givenUp.delete(each);
      }
      return "done";
    case "pause":
      if (!capabilities.pause) return "unavailable";
      model.state = "paused";
      if (step.locks === "released" && locksResources) {
        model.givenUp = new Set(model.leases);
      }
      return "done";
    case "resume":
      if (!capabilities.pause) return "unavailable";
      model.state = "running";
      model.givenUp.clear();
      return "done";
    case "inquire":
      return capabilities.pause ? "done" : "unavailable";
  }
}

async function perform(step: Step, manager: RemoteManager): Promise<string> {
  const specs = (leases: string[]) =>
    leases.map((name) => ({ type: "lease" as const, name, access: "exclusive" as const }));
  try {
    if (step.call === "acquire") await manager.call("acquireResources", specs(step.leases));
    if (step.call === "release") await manager.call("releaseResources", specs(step.leases));
    if (step.call === "pause") await manager.call("pause", step.locks);
    if (step.call === "resume") await manager.call("resume", { changes: "refuse" });
    if (step.call === "inquire") await manager.call("inquire");
    if (step.call === "shutdown") await manager.call("shutdown");
    return "done";
  } catch (error) {
    if (error instanceof LockvisorError) return error.code;
    throw error;
  }
}

/** Sequences of calls on a guest that runs: the record and the kernel's locks are always those of the model. */
export function testRunningSequences(candidate: Candidate): void {
  const { definition: { name }, keepsOut } = candidate;
  Deno.test(`${name}: any sequence of calls on a guest that runs goes as it should`, async () => {
    await using world = await World.create();
    const plugin = await candidate.install(world);
    await using process = ManagerProcess.start(world, plugin);
    let guests = 0;
    await fc.assert(
      fc.asyncProperty(beginnings, fc.array(steps, { minLength: 1, maxLength: 8 }), async (way, rest) => {
        const vm = `vm${guests++}`;
        const guest = await startGuest(world, { plugin, name: vm }, ["--lease", "test:a"]);
        let manager = await attachTo(process, vm);
        const model: Model = { leases: new Set(["test:a"]), givenUp: new Set(), state: "started" };
        for (const step of [...way, ...rest]) {
          if (step.call === "attach anew") {
            await manager.call("free");
            manager = await attachTo(process, vm);
          }
          const wanted = foresee(step, model, candidate);
          assert.equal(await perform(step, manager), wanted, JSON.stringify(step));
          const record = recordOf(world, vm);
          assert.deepEqual(record.resources.map(({ name }) => name).sort(), [...model.leases].sort());
          assert.equal(await manager.call("child"), guest.pid);
          if (model.state !== "started") assert.equal(record.state, model.state, JSON.stringify(step));
          for (const lease of ["test:a", "test:b", "test:c"]) {
            const isHeld = keepsOut === "resources" && model.leases.has(lease) && !model.givenUp.has(lease);
            assert.equal(isLeaseHeld(world, lease), isHeld, `${lease} after ${JSON.stringify(step)}`);
          }
        }
        await guest.kill();
        await manager.call("shutdown");
        await manager.call("free");
        for (const lease of ["test:a", "test:b", "test:c"]) assert.equal(isLeaseHeld(world, lease), false);
      }),
      { numRuns: 15 },
    );
    await process.unload();
  });
}
