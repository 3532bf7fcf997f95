import assert from "node:assert/strict";
import { LockvisorError } from "../../lib/errors.ts";
import { loadPlugin } from "../../lib/manager/plugin.ts";
import { driverConfigOf, managerOptionsOf } from "../support/drivers.ts";
import { refusal } from "../support/refusal.ts";
import { until } from "../support/until.ts";
import { World } from "../support/world.ts";
import type { Candidate } from "./candidate.ts";
import { isLeaseHeld, lockedFiles } from "./kernel_view.ts";

const UUID = "b1111111-2222-4333-8444-555555555555";

/** Acquiring for a guest that starts, and giving back. */
export function testStart({ definition, install, keepsOut, forecasts }: Candidate): void {
  const { name } = definition;
  const excludes = keepsOut === "resources";

  Deno.test(`${name}: cannot be unloaded while a manager is open, nor twice, nor used afterwards`, async () => {
    await using world = await World.create();
    const plugin = await loadPlugin(await install(world), driverConfigOf(world));
    const [one, two] = [1, 2].map(() => plugin.newManager("domain", "start", managerOptionsOf(world)));
    const open = (count: number) => new RegExp(`unload: plugin ${plugin.name} has ${count} open manager`);
    assert.equal(await refusal(() => plugin.unload(), open(2)), "usage");
    one!.free();
    assert.equal(await refusal(() => plugin.unload(), open(1)), "usage");
    await two![Symbol.asyncDispose]();
    plugin.unload();
    assert.equal(await refusal(() => plugin.unload(), /unload: plugin .* is unloaded/), "usage");
    const late = () => plugin.newManager("domain", "start", managerOptionsOf(world));
    assert.equal(await refusal(late, /newManager: plugin .* is unloaded; load it again/), "usage");
  });

  Deno.test(`${name}: acquires all for this process, and gives all back`, async () => {
    await using world = await World.create();
    const disk = await world.disk("a");
    const plugin = await loadPlugin(await install(world), driverConfigOf(world));
    const { store } = managerOptionsOf(world);
    for (const end of ["shutdown", "free", "dispose"]) {
      const manager = plugin.newManager("domain", "start", managerOptionsOf(world));
      manager.setParameter("name", "vm1");
      manager.registerResource("disk", disk, "exclusive");
      manager.registerResource("lease", "cluster:db", "exclusive");
      if (forecasts === "told") {
        const verdicts = manager.forecast().map(({ verdict }) => verdict);
        assert.deepEqual(new Set(verdicts), new Set([excludes ? "free" : "skipped"]));
      } else {
        assert.equal(await refusal(() => manager.forecast(), /cannot tell beforehand/), "unavailable");
      }
      await manager.acquireObject();
      assert.equal(manager.child(), Deno.pid);
      assert.equal(isLeaseHeld(world, "cluster:db"), excludes);
      assert.equal(lockedFiles(world, Deno.pid).length > 0, keepsOut !== "nobody");
      assert.equal(store.list().length, 1);
      if (end === "shutdown") await manager.shutdown();
      if (end === "dispose") await manager[Symbol.asyncDispose]();
      else manager.free();
      assert.deepEqual(store.list(), [], end);
      assert.deepEqual(lockedFiles(world, Deno.pid), [], end);
      await until(`${end} frees the locks`, () => !isLeaseHeld(world, "cluster:db"));
    }
    plugin.unload();
  });

  Deno.test(`${name}: a second manager for the same disk`, async () => {
    await using world = await World.create();
    const disk = await world.disk("a");
    const plugin = await loadPlugin(await install(world), driverConfigOf(world));
    const managers = ["vm1", "vm2", "vm3"].map((guest) => {
      const manager = plugin.newManager("domain", "start", managerOptionsOf(world));
      manager.setParameter("name", guest);
      manager.registerResource("disk", disk, "exclusive");
      return manager;
    });
    const results = await Promise.allSettled(managers.map((manager) => manager.acquireObject()));
    const winners = managers.filter((_, index) => results[index]!.status === "fulfilled");
    assert.equal(winners.length, excludes ? 1 : 3);
    for (const [index, result] of results.entries()) {
      if (result.status === "fulfilled") continue;
      assert.ok(result.reason instanceof LockvisorError);
      assert.match(result.reason.message, /^disk .*\/a is locked by guest "vm\d" \(pid \d+/);
      assert.equal(result.reason.code, "locked");
      const holder = result.reason.details.holder as { name: string; pid: number };
      assert.deepEqual(holder.pid, Deno.pid);
      // The refused manager is open as before, and gets its turn.
      for (const manager of winners.splice(0)) manager.free();
      await managers[index]!.acquireObject();
      managers[index]!.free();
    }
    for (const manager of winners) manager.free();
    plugin.unload();
  });

  Deno.test(`${name}: a guest is not started twice; the refusal names it, and nothing is left behind`, async () => {
    await using world = await World.create();
    const loadedAs = await install(world);
    const start = ["run", "--plugin", loadedAs, "--name", "vm1", "--uuid", UUID];
    const guest = await world.startRunning([...start, "--", "sleep", "60"]);
    const plugin = await loadPlugin(loadedAs, driverConfigOf(world));
    await using manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    manager.setParameter("name", "vm1");
    manager.setParameter("uuid", UUID);
    manager.registerResource("lease", "cluster:db", "exclusive");
    const says = keepsOut === "nobody" ? /running already as "vm1"/ : /is locked by guest "vm1"/;
    assert.equal(await refusal(() => manager.acquireObject(), says), "locked");
    assert.equal(
      await refusal(() => manager.acquireObject(), new RegExp(`\\(pid ${guest.pid}\\b`)),
      "locked",
    );
    assert.deepEqual(lockedFiles(world, Deno.pid), []);
    assert.equal(isLeaseHeld(world, "cluster:db"), false);
    const [entry] = managerOptionsOf(world).store.list();
    assert.ok(entry?.kind === "record");
    assert.equal(entry.record.carriers[0].pid, guest.pid);
    await guest.kill();
    await manager.acquireObject();
    assert.equal(manager.child(), Deno.pid);
  });

  Deno.test(`${name}: while it acquires, no second call gets between`, async () => {
    await using world = await World.create();
    const plugin = await loadPlugin(await install(world), driverConfigOf(world));
    const manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    manager.setParameter("name", "vm1");
    const acquiring = manager.acquireObject();
    // All in the same turn: nothing of the acquiring has come back yet.
    assert.throws(() => manager.free(), { message: /^free: not possible in state "busy"/ });
    assert.throws(() => manager.setParameter("id", "7"), { message: /^setParameter: not possible in state/ });
    assert.throws(() => plugin.unload(), { message: /open manager/ });
    const second = refusal(
      () => manager.acquireObject(),
      /^acquireObject: not possible in state "busy"/,
    );
    assert.equal(await second, "usage");
    await acquiring;
    manager.free();
    plugin.unload();
    assert.deepEqual(managerOptionsOf(world).store.list(), []);
  });

  Deno.test(`${name}: handed over locks are in the process that is started next, and outlive this one`, async () => {
    await using world = await World.create();
    // In a process of its own: guests of tests that run beside would inherit the descriptors here.
    const script = new URL("../support/hand_over.ts", import.meta.url).pathname;
    const { lockspace, runtimeDir, hostId } = world;
    const args = ["run", "-A", "--no-check", script, await install(world), lockspace, runtimeDir, hostId];
    const { code, stdout, stderr } = await world.execute(Deno.execPath(), args, {
      env: { DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno` },
    });
    assert.equal(code, 0, stderr);
    const heir = Number(stdout);
    try {
      assert.equal(
        lockedFiles(world, heir).length > 0,
        keepsOut !== "nobody",
        "held after its maker has ended",
      );
      assert.equal(isLeaseHeld(world, "cluster:db"), excludes);
    } finally {
      Deno.kill(heir, "SIGKILL");
    }
    await until("the heir has ended", () => !isLeaseHeld(world, "cluster:db"));
  });
}
