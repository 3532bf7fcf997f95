import assert from "node:assert/strict";
import {
  diskAttach,
  diskDetach,
  type DomainLock,
  processPause,
  processResume,
  resourcesChangeAccess,
} from "../lib/domain_lock.ts";
import { processCancelOut, processCompleteOut, processMigratePrepare } from "../lib/domain_migration.ts";
import type { Driver, DriverDefinition } from "../lib/driver/contract.ts";
import type { GuestRecord } from "../lib/manager/guest_record.ts";
import { GuestStore } from "../lib/manager/guest_store.ts";
import { Plugin } from "../lib/manager/plugin.ts";
import { driverNamed } from "../lib/manager/registry.ts";
import { driverConfigOf } from "./support/drivers.ts";
import { World } from "./support/world.ts";

Deno.test("what a driver has not declared is refused before anything happens", async () => {
  await using world = await World.create();
  const guest = await world.startRunning(["run", "--name", "vm1", "--plugin", "nop", "--", "sleep", "60"]);
  const entry = new GuestStore(world.runtimeDir).list()[0];
  assert.ok(entry?.kind === "record");
  const file = `${world.runtimeDir}/guests/${entry.record.uuid}.json`;
  await Deno.writeTextFile(
    file,
    (await Deno.readTextFile(file)).replace(`"plugin":"nop"`, `"plugin":"whole-guests"`),
  );
  const nothing = new Proxy({}, {
    get: (_, name) => () => assert.fail(`the driver was asked for ${String(name)}`),
  });
  const definition: DriverDefinition = {
    name: "whole-guests",
    capabilities: { resources: [], hotplug: false, migration: false, pause: false },
    create: () => nothing as Driver,
  };
  const lock: DomainLock = {
    plugin: new Plugin(definition, driverConfigOf(world)),
    options: { store: new GuestStore(world.runtimeDir) },
  };
  const record: GuestRecord = entry.record;
  const disk = { name: "/dev/null", access: "exclusive" } as const;
  const calls = [
    () => diskAttach(lock, record, disk),
    () => diskDetach(lock, record, disk),
    () => resourcesChangeAccess(lock, record, [{ ...disk, type: "disk" }]),
    () => processPause(lock, record, "kept"),
    () => processResume(lock, record, { changes: "refuse" }),
    () => processMigratePrepare(lock, record, { destination: "ssh://hv2" }),
    () => processCompleteOut(lock, record),
    () => processCancelOut(lock, record),
  ];
  for (const call of calls) {
    await assert.rejects(call(), {
      code: "unavailable",
      message: /plugin whole-guests does not offer (hotplug|pause|migration)/,
    });
  }
  assert.equal(Deno.readTextFileSync(`/proc/${guest.pid}/comm`), "sleep\n");
});

Deno.test("drivers declare only what the program can do", () => {
  for (const name of ["sync-manager", "nop"]) {
    assert.deepEqual(driverNamed(name).capabilities, {
      resources: ["disk", "lease"],
      hotplug: true,
      // A guest without locks has none to move.
      migration: name === "sync-manager",
      pause: true,
    });
  }
});
