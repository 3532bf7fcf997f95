import assert from "node:assert/strict";
import type { Ability } from "../../lib/manager/abilities.ts";
import type { RemoteManager } from "../support/manager_process.ts";
import { refusal } from "../support/refusal.ts";
import type { Candidate } from "./candidate.ts";
import { stateOf, withRunningGuest } from "./running_guest.ts";

type Attempt = (manager: RemoteManager) => Promise<unknown>;

/** The calls that belong to an ability. */
const CALLS_OF: Record<Ability, Record<string, Attempt>> = {
  hotplug: {
    acquireResource: (manager) => manager.call("acquireResource", "lease", "cluster:more", "exclusive"),
    releaseResource: (manager) => manager.call("releaseResource", "lease", "cluster:db", "exclusive"),
    changeAccess: (manager) =>
      manager.call("changeAccess", [{ type: "lease", name: "cluster:db", access: "shared" }]),
  },
  pause: {
    "pause with its locks": (manager) => manager.call("pause", "kept"),
    "pause without its locks": (manager) => manager.call("pause", "released"),
    resume: (manager) => manager.call("resume", { changes: "accept" }),
    inquire: (manager) => manager.call("inquire"),
  },
  migration: {
    prepareMigrate: (manager) => manager.call("prepareMigrate", "qemu+ssh://hv2/system"),
    noteIncomingGuest: (manager) => manager.call("noteIncomingGuest", "let-go"),
    "completeMigrateOut, done": (manager) => manager.call("completeMigrateOut", { cancel: false }),
    "completeMigrateOut, cancelled": (manager) => manager.call("completeMigrateOut", { cancel: true }),
    "completeMigrateIn, done": (manager) => manager.call("completeMigrateIn", { cancel: false }),
    "completeMigrateIn, cancelled": (manager) => manager.call("completeMigrateIn", { cancel: true }),
  },
};

/** What a driver does not declare is refused before anything has happened. */
export function testUndeclared(candidate: Candidate): void {
  const { name, capabilities } = candidate.definition;
  for (const ability of ["hotplug", "pause", "migration"] as const) {
    if (capabilities[ability]) continue;

    Deno.test(`${name}: does not declare ${ability}; its calls are refused and change nothing`, () =>
      withRunningGuest(candidate, () => ["--lease", "cluster:db"], async ({ world, manager, plugin }) => {
        const before = stateOf(world, "vm1");
        const says = new RegExp(`: plugin ${plugin} does not offer ${ability}$`);
        for (const [call, attempt] of Object.entries(CALLS_OF[ability])) {
          assert.equal(await refusal(() => attempt(manager), says), "unavailable", call);
          assert.deepEqual(stateOf(world, "vm1"), before, call);
        }
      }));
  }

  if (capabilities.hotplug) return;
  Deno.test(`${name}: does not declare hotplug; a process that runs already is not adopted`, () =>
    withRunningGuest(candidate, () => [], async ({ world, process }) => {
      const child = new Deno.Command("sleep", { args: ["60"], stdin: "null", stdout: "null" }).spawn();
      try {
        const before = stateOf(world, "vm1");
        const manager = await process.newManager("attach");
        await manager.call("setParameter", "name", "vm2");
        await manager.call("setParameter", "pid", child.pid);
        const adopt = () => manager.call("adoptObject");
        assert.equal(
          await refusal(adopt, /cannot adopt process \d+: .* does not offer hotplug/),
          "unavailable",
        );
        assert.deepEqual(stateOf(world, "vm1"), before);
      } finally {
        child.kill("SIGKILL");
        await child.status;
      }
    }));
}
