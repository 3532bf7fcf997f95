import assert from "node:assert/strict";
import { uuidOfName } from "../../lib/identity/key.ts";
import { refusal } from "../support/refusal.ts";
import { until } from "../support/until.ts";
import type { Candidate } from "./candidate.ts";
import { isLeaseHeld, lockedFiles } from "./kernel_view.ts";
import { attachTo, locksOf, recordOf, startGuest, stateOf, withRunningGuest } from "./running_guest.ts";

const LEASE = ["--lease", "cluster:db"];

/** Attaching to a guest that runs, and what becomes of it at its end. */
export function testAttach(candidate: Candidate): void {
  const { definition: { name }, keepsOut } = candidate;

  Deno.test(`${name}: a guest that runs is found by its name or uuid, and its child is its process`, () =>
    withRunningGuest(candidate, () => LEASE, async ({ world, guest, process, manager, plugin }) => {
      assert.equal(await manager.call("child"), guest.pid);
      assert.equal((await manager.call("record")).plugin, plugin);
      assert.equal(lockedFiles(world, guest.pid).length > 0, keepsOut !== "nobody");
      const byUuid = await process.newManager("attach");
      await byUuid.call("setParameter", "uuid", uuidOfName("vm1").toUpperCase());
      await byUuid.call("attach");
      assert.equal(await byUuid.call("child"), guest.pid);
      await manager.call("free");
      await byUuid.call("free");
      assert.equal(isAlive(guest.pid), true, "free leaves a guest that runs alone");
      assert.equal(isLeaseHeld(world, "cluster:db"), keepsOut === "resources");
      await process.unload();
    }));

  Deno.test(`${name}: attaching to nobody, to an ended guest or to another plugin's is refused`, () =>
    withRunningGuest(candidate, () => [], async ({ world, guest, process }) => {
      const other = name === "nop" ? "sync-manager" : "nop";
      await startGuest(world, { plugin: other, name: "vm2" });
      const nobody = await process.newManager("attach");
      assert.equal(await refusal(() => nobody.call("attach"), /attach: the guest has no name/), "usage");
      await nobody.call("setParameter", "name", "vm9");
      assert.equal(await refusal(() => nobody.call("attach"), /no guest "vm9" runs on this host/), "data");
      const foreign = await process.newManager("attach");
      await foreign.call("setParameter", "name", "vm2");
      const says = new RegExp(`guest "vm2" is locked by plugin ${other}, not by `);
      assert.equal(await refusal(() => foreign.call("attach"), says), "data");
      await guest.kill();
      const late = await process.newManager("attach");
      await late.call("setParameter", "name", "vm1");
      assert.equal(await refusal(() => late.call("attach"), /guest "vm1"/), "data");
      assert.equal(await refusal(() => late.call("child"), /^child: not possible/), "usage", "still open");
    }));

  Deno.test(`${name}: a guest whose record is lost is found again where the driver tells of it`, () =>
    withRunningGuest(candidate, () => LEASE, async ({ world, guest, process }) => {
      const before = recordOf(world, "vm1");
      await Deno.remove(`${world.runtimeDir}/guests/${before.uuid}.json`);
      if (keepsOut === "resources") {
        const manager = await attachTo(process, "vm1");
        assert.equal(await manager.call("child"), guest.pid);
        assert.deepEqual(recordOf(world, "vm1").leaseKeys, before.leaseKeys);
        assert.deepEqual(recordOf(world, "vm1").resources.map(({ name }) => name), ["cluster:db"]);
      } else {
        const manager = await process.newManager("attach");
        await manager.call("setParameter", "name", "vm1");
        assert.equal(await refusal(() => manager.call("attach"), /no guest "vm1" runs/), "data");
      }
    }));

  Deno.test(`${name}: shutdown is refused while the guest runs, and proves afterwards that its locks are free`, () =>
    withRunningGuest(candidate, () => LEASE, async ({ world, guest, manager }) => {
      const before = stateOf(world, "vm1");
      const running = () => manager.call("shutdown");
      assert.equal(await refusal(running, new RegExp(`"vm1" \\(pid ${guest.pid}\\) still runs`)), "locked");
      assert.deepEqual(stateOf(world, "vm1"), before);
      assert.equal(await manager.call("child"), guest.pid, "still attached");
      await guest.kill();
      await manager.call("shutdown");
      assert.equal(isLeaseHeld(world, "cluster:db"), false);
      assert.equal(
        Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`), ({ name }) => name)
          .filter((file) => file.endsWith(".json")).length,
        0,
      );
      await manager.call("free");
    }));

  if (keepsOut !== "nobody") {
    Deno.test(`${name}: shutdown names a process that inherited the locks, and is done when that has ended`, () =>
      withRunningGuest(candidate, () => [], async ({ world, process }) => {
        // The shell becomes the guest; its child has its descriptors and outlives it.
        const command = ["sh", "-c", "sleep 60 & echo $! >$0; wait", `${world.directory}/child`];
        const plugin = recordOf(world, "vm1").plugin;
        const guest = await world.startRunning([
          "run",
          "--plugin",
          plugin,
          "--name",
          "vm2",
          "--",
          ...command,
        ]);
        const child = await pidIn(`${world.directory}/child`);
        try {
          const manager = await attachTo(process, "vm2");
          assert.ok(locksOf(world, "vm2").length > 0);
          await guest.kill();
          // A driver that does not tell what processes hold cannot name one either.
          const who = name === "sync-manager"
            ? /process \d+ \(sleep\)/
            : /a process that cannot be seen from here/;
          const says = new RegExp(`locks are still held by ${who.source}`);
          assert.equal(await refusal(() => manager.call("shutdown"), says), "locked");
          Deno.kill(child, "SIGKILL");
          await manager.call("shutdown");
        } finally {
          try {
            Deno.kill(child, "SIGKILL");
          } catch { /* it has ended */ }
        }
      }));
  }
}

/** The pid that a script writes into a file. */
async function pidIn(file: string): Promise<number> {
  let pid = 0;
  await until("the child's pid is known", () => {
    try {
      pid = Number(Deno.readTextFileSync(file));
    } catch { /* not yet */ }
    return pid > 0;
  });
  return pid;
}

function isAlive(pid: number): boolean {
  return Deno.readTextFileSync(`/proc/${pid}/comm`) === "sleep\n";
}
