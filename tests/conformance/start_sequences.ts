import assert from "node:assert/strict";
import fc from "fast-check";
import { LockvisorError } from "../../lib/errors.ts";
import type { LockManager } from "../../lib/manager/lock_manager.ts";
import { loadPlugin, type Plugin } from "../../lib/manager/plugin.ts";
import type { Call } from "../support/manager_process.ts";
import { driverConfigOf, managerOptionsOf } from "../support/drivers.ts";
import { until } from "../support/until.ts";
import { World } from "../support/world.ts";
import { ALLOWED, type Phase } from "./allowed.ts";
import type { Candidate } from "./candidate.ts";
import { isLeaseHeld, lockedFiles } from "./kernel_view.ts";

/** Calls of a manager for a guest that starts, each in a form that succeeds where it is allowed. */
const CALLS: Record<string, (manager: LockManager, guest: string) => unknown> = {
  setName: (manager, guest) => manager.setParameter("name", guest),
  wrongParameter: (manager) => manager.setParameter("pid", -1),
  registerResource: (manager, guest) => manager.registerResource("lease", `test:${guest}`, "exclusive"),
  forecast: (manager) => manager.forecast(),
  acquireObject: (manager) => manager.acquireObject(),
  handOver: (manager) => manager.handOver(),
  child: (manager) => manager.child(),
  shutdown: (manager) => manager.shutdown(),
  supervisorPath: (manager) => manager.supervisorPath(),
  supervisorArgs: (manager) => manager.supervisorArgs(),
  free: (manager) => manager.free(),
};

/** Ways into every phase; by chance alone few sequences would get far. */
const beginnings = fc.constantFrom(
  [],
  ["setName", "registerResource"],
  ["setName", "registerResource", "acquireObject"],
  ["setName", "acquireObject", "shutdown"],
  ["free"],
);

/** What is known of a manager by its calls alone. */
interface Model {
  phase: Phase;
  named: boolean;
}

type Outcome = "done" | "out of order" | "usage" | "unavailable";

/** What becomes of a call, by the model, which it changes. */
function foresee(call: string, model: Model, forecasts: Candidate["forecasts"]): Outcome {
  const contractCall = (call === "setName" || call === "wrongParameter" ? "setParameter" : call) as Call;
  if (!ALLOWED[contractCall]!.start!.includes(model.phase)) return "out of order";
  const needsName = ["forecast", "acquireObject", "supervisorArgs"].includes(call);
  if (call === "wrongParameter" || (call === "setName" ? model.named : needsName && !model.named)) {
    return "usage";
  }
  if (call === "forecast" && forecasts === "refused") return "unavailable";
  if (call === "setName") model.named = true;
  if (call === "acquireObject") model.phase = "acquired";
  if (call === "shutdown") model.phase = "shut-down";
  if (call === "free") model.phase = "freed";
  return "done";
}

async function perform(call: string, manager: LockManager, guest: string): Promise<Outcome> {
  try {
    await CALLS[call]!(manager, guest);
    return "done";
  } catch (error) {
    assert.ok(error instanceof LockvisorError, String(error));
    if (/^\w+: not possible in state "/.test(error.message)) return "out of order";
    return error.code as Outcome;
  }
}

/** Sequences of calls of managers for guests that start, against a model. */
export function testStartSequences({ definition, install, keepsOut, forecasts }: Candidate): void {
  Deno.test(`${definition.name}: any sequence of calls goes as the phases say`, async () => {
    await using world = await World.create();
    const plugin = await loadPlugin(await install(world), driverConfigOf(world));
    // Handed over descriptors would be in the guests of tests that run beside.
    const calls = Object.keys(CALLS).filter((call) => call !== "handOver");
    await checkSequences(plugin, world, { calls, keepsOut, forecasts, runs: 60 });
    plugin.unload();
  });
}

/** The property itself: after each call the records and the kernel's locks are those of the model. */
export async function checkSequences(
  plugin: Plugin,
  world: World,
  { calls = Object.keys(CALLS), keepsOut, forecasts, runs }:
    & Pick<Candidate, "keepsOut" | "forecasts">
    & { calls?: string[]; runs: number },
): Promise<void> {
  const { store } = managerOptionsOf(world);
  let sequences = 0;
  await fc.assert(
    fc.asyncProperty(
      beginnings,
      fc.array(fc.constantFrom(...calls), { maxLength: 8 }),
      async (way, rest) => {
        const guest = `guest${sequences++}`;
        const model: Model = { phase: "open", named: false };
        const manager = plugin.newManager("domain", "start", managerOptionsOf(world));
        let registered = false;
        for (const call of [...way, ...rest]) {
          const wanted = foresee(call, model, forecasts);
          assert.equal(await perform(call, manager, guest), wanted, call);
          registered ||= call === "registerResource" && wanted === "done";
          const acquired = model.phase === "acquired";
          assert.equal(store.list().length, acquired ? 1 : 0, `records after ${call}`);
          assert.equal(lockedFiles(world, Deno.pid).length > 0, acquired && keepsOut !== "nobody", call);
          const isHeld = acquired && registered && keepsOut === "resources";
          if (isHeld) assert.ok(isLeaseHeld(world, `test:${guest}`), `held after ${call}`);
          else await until(`free after ${call}`, () => !isLeaseHeld(world, `test:${guest}`));
        }
        if (model.phase !== "freed") manager.free();
        assert.deepEqual(store.list(), []);
      },
    ),
    { numRuns: runs },
  );
}
