import assert from "node:assert/strict";
import {
  attachResources,
  detachResources,
  type DomainLock,
  pauseGuest,
  resumeGuest,
} from "../lib/domain_lock.ts";
import type { GuestRecord } from "../lib/manager/guest_record.ts";
import { GuestStore } from "../lib/manager/guest_store.ts";
import { driverNamed } from "../lib/manager/registry.ts";

Deno.test("what a driver has not declared is refused before anything happens", async () => {
  const nothing = new Proxy({}, {
    get: (_, name) => () => assert.fail(`the driver was asked for ${String(name)}`),
  });
  const lock: DomainLock = {
    store: new GuestStore("/nowhere"),
    driver: nothing as DomainLock["driver"],
    plugin: "whole-guests",
    capabilities: { resources: [], hotplug: false, migration: false, pause: false },
  };
  const guest = { uuid: "u", name: "vm1" } as GuestRecord;
  const idle = () => assert.fail("the guest was touched");
  const calls = [
    () => attachResources(lock, guest, []),
    () => detachResources(lock, guest, []),
    () => pauseGuest(lock, guest, { locks: "kept", stopProcessors: idle }),
    () => resumeGuest(lock, guest, { changes: "refuse", startProcessors: idle }),
  ];
  for (const call of calls) {
    await assert.rejects(call(), {
      code: "unavailable",
      message: /plugin whole-guests does not offer (hotplug|pause)/,
    });
  }
});

Deno.test("drivers declare only what the program can do", () => {
  for (const name of ["sync-manager", "nop"]) {
    assert.deepEqual(driverNamed(name).capabilities, {
      resources: ["disk", "lease"],
      hotplug: true,
      migration: false,
      pause: true,
    });
  }
});
