import assert from "node:assert/strict";
import fc from "fast-check";
import { COMMANDS } from "../lib/cli/commands.ts";
import { parseCommandLine } from "../lib/cli/parse.ts";
import { parseDisk, parseLease } from "../lib/identity/specification.ts";
import { loadPlugin, Plugin } from "../lib/manager/plugin.ts";
import { driverNames } from "../lib/manager/registry.ts";
import { checkSequences } from "./conformance/start_sequences.ts";
import { driverConfigOf, managerOptionsOf, recordingDriver } from "./support/drivers.ts";
import { refusal } from "./support/refusal.ts";
import { World } from "./support/world.ts";

const UUID = "b1111111-2222-4333-8444-555555555555";

Deno.test("an unknown plugin is unavailable, and the known ones are named", async () => {
  await using world = await World.create();
  for (const name of ["etcd", "", "__proto__", "constructor"]) {
    const says = new RegExp(`there is no plugin "${name}"; there are: ${driverNames().join(", ")}`);
    assert.equal(await refusal(() => loadPlugin(name, driverConfigOf(world)), says), "unavailable");
  }
});

Deno.test("a manager asks its driver in order, and gives back what it cannot record", async () => {
  await using world = await World.create();
  const log: string[] = [];
  const plugin = new Plugin(recordingDriver(log), driverConfigOf(world));
  const manager = plugin.newManager("domain", "start", managerOptionsOf(world));
  manager.setParameter("name", "vm1");
  await manager.acquireObject();
  manager.handOver();
  await manager.shutdown();
  manager.free();
  assert.deepEqual(log.splice(0), ["acquire", "giveBack"]);
  await world.startRunning(["run", "--name", "vm1", "--uuid", UUID, "--", "sleep", "60"]);
  const second = plugin.newManager("domain", "start", managerOptionsOf(world));
  second.setParameter("name", "vm1");
  assert.equal(await refusal(() => second.acquireObject(), /names are unique on a host/), "locked");
  assert.deepEqual(log, ["acquire", "giveBack"]);
  second.free();
});

Deno.test("any sequence of calls of a manager goes as the phases say, whatever the driver", async () => {
  await using world = await World.create();
  const plugin = new Plugin(recordingDriver([]), driverConfigOf(world));
  await checkSequences(plugin, world, { keepsOut: "nobody", forecasts: "told", runs: 200 });
  plugin.unload();
});

Deno.test("supervisorArgs are read back by the command line as they were meant", async () => {
  await using world = await World.create();
  const plugin = new Plugin(recordingDriver([]), driverConfigOf(world));
  const word = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 });
  const name = word.filter((text) => text.trim() !== "" && !/[/\p{Cc}\u2028\u2029\ufffd]/u.test(text));
  const id = fc.stringMatching(/^[A-Za-z0-9_.:-]{1,64}$/);
  const qmp = word.filter((text) => !text.includes("\0"));
  const lease = fc.tuple(fc.stringMatching(/^[A-Za-z0-9_.-]{1,64}$/), fc.stringMatching(/^[ -~]{1,40}$/));
  const access = fc.constantFrom("exclusive" as const, "shared" as const, "readonly" as const);
  const action = fc.constantFrom("pause" as const, "kill" as const, "ignore" as const);
  const guests = fc.record({
    name,
    id,
    qmp,
    action,
    leases: fc.array(fc.tuple(lease, access), { maxLength: 4 }),
  });
  await fc.assert(fc.asyncProperty(guests, async (guest) => {
    await using manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    manager.setParameter("name", guest.name);
    manager.setParameter("id", guest.id);
    manager.setParameter("qmp", guest.qmp);
    manager.setParameter("on-lock-failure", guest.action);
    const leases = guest.leases.map(([parts, access]) => ({ name: parts.join(":"), access }));
    for (const { name, access } of leases) manager.registerResource("lease", name, access);
    const request = parseCommandLine([...manager.supervisorArgs(), "qemu", "--name", "x"], COMMANDS);
    assert.ok(request.kind === "run" && request.command.name === "run");
    const { options, userCommand } = request.invocation;
    assert.deepEqual(userCommand, ["qemu", "--name", "x"]);
    assert.equal(options.text("name"), guest.name);
    assert.equal(options.text("id"), guest.id);
    assert.equal(options.text("qmp"), guest.qmp);
    assert.equal(options.text("on-lock-failure"), guest.action);
    assert.deepEqual(
      options.texts("lease").map(parseLease).map(({ name, access }) => ({ name, access })),
      leases,
    );
    assert.deepEqual(options.texts("disk").map(parseDisk), []);
  }));
});
