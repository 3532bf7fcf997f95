import assert from "node:assert/strict";
import type { DriverCapabilities } from "../../lib/driver/contract.ts";
import { LockvisorError } from "../../lib/errors.ts";
import { type Call, ManagerProcess, type RemoteManager } from "../support/manager_process.ts";
import { refusal } from "../support/refusal.ts";
import { World } from "../support/world.ts";
import { ALLOWED, type Mode, type Phase } from "./allowed.ts";
import type { Candidate } from "./candidate.ts";

/** The phases of each mode but `migrate`, which is in migration_order.ts. */
const PHASES: Record<Exclude<Mode, "migrate">, Phase[]> = {
  start: ["open", "acquired", "shut-down", "freed"],
  attach: ["open", "attached", "shut-down", "freed"],
};

/** The calls of the contract, each in a form that makes sense where it is allowed. */
export const CALLS: Partial<Record<Call, (manager: RemoteManager) => Promise<unknown>>> = {
  setParameter: (manager) => manager.call("setParameter", "id", "7"),
  registerResource: (manager) => manager.call("registerResource", "lease", "cluster:more", "shared"),
  forecast: (manager) => manager.call("forecast"),
  acquireObject: (manager) => manager.call("acquireObject"),
  handOver: (manager) => manager.call("handOver"),
  attach: (manager) => manager.call("attach"),
  adoptObject: (manager) => manager.call("adoptObject"),
  child: (manager) => manager.call("child"),
  record: (manager) => manager.call("record"),
  acquireResource: (manager) => manager.call("acquireResource", "lease", "cluster:hot", "exclusive"),
  releaseResource: (manager) => manager.call("releaseResource", "lease", "cluster:hot", "exclusive"),
  changeAccess: (manager) =>
    manager.call("changeAccess", [{ type: "lease", name: "cluster:hot", access: "shared" }]),
  pause: (manager) => manager.call("pause", "kept"),
  resume: (manager) => manager.call("resume", { changes: "refuse" }),
  inquire: (manager) => manager.call("inquire"),
  prepareMigrate: (manager) => manager.call("prepareMigrate", "qemu+ssh://hv2/system"),
  noteIncomingGuest: (manager) => manager.call("noteIncomingGuest", "let-go"),
  completeMigrateOut: (manager) => manager.call("completeMigrateOut", { cancel: false }),
  completeMigrateIn: (manager) => manager.call("completeMigrateIn", { cancel: true }),
  shutdown: (manager) => manager.call("shutdown"),
  supervisorPath: (manager) => manager.call("supervisorPath"),
  supervisorArgs: (manager) => manager.call("supervisorArgs"),
  free: (manager) => manager.call("free"),
};

/** The ability that a call belongs to. */
const ABILITY: Partial<Record<Call, "hotplug" | "pause" | "migration">> = {
  acquireResource: "hotplug",
  releaseResource: "hotplug",
  changeAccess: "hotplug",
  pause: "pause",
  resume: "pause",
  inquire: "pause",
  prepareMigrate: "migration",
  noteIncomingGuest: "migration",
  completeMigrateOut: "migration",
  completeMigrateIn: "migration",
};

/** What becomes of a call that is in order: `done`, or the code that it is refused with. */
function inOrder(call: Call, mode: Mode, { definition, forecasts }: Candidate): string {
  const ability = ABILITY[call];
  const capabilities: DriverCapabilities = definition.capabilities;
  if (ability !== undefined && !capabilities[ability]) return "unavailable";
  if (call === "forecast" && forecasts === "refused") return "unavailable";
  if (call === "adoptObject") return "usage"; // which process?
  if (call === "changeAccess") return "data"; // the guest has no such lease any more
  if (call === "completeMigrateOut") return "locked"; // the guest has no monitor that tells that it has left
  if (call === "completeMigrateIn") return "data"; // it leaves, and does not come
  if (call === "shutdown" && mode === "attach") return "locked"; // the guest runs
  return "done";
}

/** What became of a call: `done`, `out of order`, or the code that it was refused with. */
export async function outcomeOf(action: () => Promise<unknown>): Promise<string> {
  try {
    await action();
    return "done";
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    return /^\w+: not possible /.test(error.message) ? "out of order" : error.code;
  }
}

/** Every call in every phase of both modes. */
export function testOrder(candidate: Candidate): void {
  const { name } = candidate.definition;

  Deno.test(`${name}: in every mode and phase every call is done, or refused by its name and the phase`, async () => {
    await using world = await World.create();
    const plugin = await candidate.install(world);
    await using process = ManagerProcess.start(world, plugin);
    const seen: string[] = [];
    const wanted: string[] = [];
    for (const mode of ["start", "attach"] as const) {
      for (const phase of PHASES[mode]) {
        const name = `${mode}-${phase}`;
        const managers = await managersIn({ mode, phase, name }, { world, plugin, process });
        for (
          const [call, make] of Object.entries(CALLS) as [Call, (manager: RemoteManager) => Promise<void>][]
        ) {
          const manager = managers.pop()!;
          if (mode === "start" && phase === "acquired") await manager.call("acquireObject");
          const isAllowed = ALLOWED[call]![mode]?.includes(phase) === true;
          seen.push(`${call} in ${name}: ${await outcomeOf(() => make(manager))}`);
          wanted.push(`${call} in ${name}: ${isAllowed ? inOrder(call, mode, candidate) : "out of order"}`);
          const isFreed = phase === "freed" || call === "free";
          if (!isFreed) await manager.call("free"); // as if the call had not been
          const again = refusal(() => manager.call("free"), /^free: not possible in state "freed"/);
          assert.equal(await again, "usage");
        }
      }
    }
    assert.deepEqual(seen, wanted);
    await process.unload();
  });

  if (candidate.definition.capabilities.migration) return;
  Deno.test(`${name}: a manager for a migration is refused`, async () => {
    await using world = await World.create();
    const plugin = await candidate.install(world);
    await using process = ManagerProcess.start(world, plugin);
    const refused = refusal(
      () => process.newManager("migrate"),
      new RegExp(`mode "migrate": plugin ${plugin} does not offer migration`),
    );
    assert.equal(await refused, "unavailable");
  });
}

/** As many managers as there are calls, of a guest of that name; those to be acquired are taken as far as `open`. */
async function managersIn(
  { mode, phase, name }: { mode: keyof typeof PHASES; phase: Phase; name: string },
  { world, plugin, process }: { world: World; plugin: string; process: ManagerProcess },
): Promise<RemoteManager[]> {
  const isAttached = mode === "attach";
  const guest = isAttached
    ? await world.startRunning(["run", "--plugin", plugin, "--name", name, "--", "sleep", "60"])
    : undefined;
  const managers: RemoteManager[] = [];
  for (const _ of Object.keys(CALLS)) {
    const manager = await process.newManager(mode);
    await manager.call("setParameter", "name", name);
    const runs = phase === "attached" || phase === "shut-down";
    if (isAttached && runs) await manager.call("attach");
    if (!isAttached && phase === "shut-down") {
      await manager.call("acquireObject");
      await manager.call("shutdown");
    }
    if (phase === "freed") await manager.call("free");
    managers.push(manager);
  }
  if (isAttached && phase === "shut-down") {
    await guest!.kill();
    for (const manager of managers) await manager.call("shutdown");
  }
  return managers;
}
