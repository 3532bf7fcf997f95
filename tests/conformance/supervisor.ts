import assert from "node:assert/strict";
import { loadPlugin } from "../../lib/manager/plugin.ts";
import { driverConfigOf, managerOptionsOf } from "../support/drivers.ts";
import { refusal } from "../support/refusal.ts";
import { World } from "../support/world.ts";
import type { Candidate } from "./candidate.ts";

const UUID = "b1111111-2222-4333-8444-555555555555";

/** The program that a management tool starts a guest with. */
export function testSupervisor({ definition: { name }, install, keepsOut }: Candidate): void {
  Deno.test(`${name}: supervisorPath and supervisorArgs start the guest that the manager was told of`, async () => {
    await using world = await World.create();
    await using elsewhere = await World.create({ hostId: "elsewhere" });
    const disk = await world.disk("a,b");
    const plugin = await loadPlugin(await install(world), driverConfigOf(world));
    await using manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    manager.setParameter("name", "-vm 1");
    manager.setParameter("uuid", UUID);
    manager.setParameter("id", "7");
    manager.setParameter("qmp", `${world.directory}/qmp`);
    manager.setParameter("on-lock-failure", "kill");
    manager.registerResource("disk", disk, "readonly");
    manager.registerResource("lease", "cluster:a,b", "shared");
    assert.equal(
      manager.supervisorPath(),
      Deno.execPath(),
      "the program that runs: lockvisor, where it is compiled",
    );
    // The management tool's environment may lead elsewhere; the guest must land in the manager's lockspace.
    const guest = await elsewhere.startRunning([...manager.supervisorArgs(), "sleep", "60"]);
    const { guests } = JSON.parse((await world.run(["status", "--json"])).stdout);
    assert.deepEqual(JSON.parse((await elsewhere.run(["status", "--json"])).stdout), { guests: [] });
    const keys = (some: { keys: string[] }[]) => some.map((resource) => resource.keys);
    assert.deepEqual(guests, [{
      uuid: UUID,
      name: "-vm 1",
      id: "7",
      state: "running",
      plugin: plugin.name,
      pid: guest.pid,
      since: guests[0].since,
      resources: [
        {
          type: "disk",
          name: disk,
          access: "readonly",
          keys: keys(guests[0].resources)[0],
          locked: keepsOut === "resources",
        },
        {
          type: "lease",
          name: "cluster:a,b",
          access: "shared",
          keys: keys(guests[0].resources)[1],
          locked: keepsOut === "resources",
        },
      ],
      locks: guests[0].locks,
    }]);
    const entry = managerOptionsOf(world).store.read(UUID);
    assert.ok(entry?.kind === "record");
    assert.deepEqual([entry.record.qmp, entry.record.onLockFailure], [`${world.directory}/qmp`, "kill"]);
    const blocked = await refusal(() => manager.acquireObject(), /is (locked by|running already)/);
    assert.equal(blocked, "locked");
  });
}
