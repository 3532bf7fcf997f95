import assert from "node:assert/strict";
import { gc } from "./support/garbage.ts";
import type { Guest } from "./support/guest.ts";
import { holders } from "./support/holders.ts";
import { flockedFiles, lockFiles } from "./support/kernel.ts";
import { monitoredGuest } from "./support/monitored_guest.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/** How often all disks come and go; `deno task soak` has them do it 100 times. */
const ROUNDS = Number(Deno.env.get("LOCKVISOR_HOTPLUG_ROUNDS") ?? 3);
const DISKS = 16;

/** How the disks are shared out among commands, round by round. */
const MANNERS = ["one command for all", "one command for each", "four commands at once"] as const;

/** Calls acquire or release for all disks, in one of the manners. */
async function plug(
  world: World,
  command: "acquire" | "release",
  { disks, manner }: { disks: readonly string[]; manner: (typeof MANNERS)[number] },
): Promise<void> {
  const call = async (some: readonly string[]) => {
    const result = await world.run([command, "vm1", ...some.flatMap((disk) => ["--disk", disk])]);
    assert.deepEqual([result.code, result.stderr], [0, ""], `${command}, ${manner}`);
  };
  switch (manner) {
    case "one command for all":
      return await call(disks);
    case "one command for each":
      for (const disk of disks) await call([disk]);
      return;
    case "four commands at once":
      await Promise.all([0, 1, 2, 3].map((part) => call(disks.slice(4 * part, 4 * part + 4))));
  }
}

/** What `status` says is locked, the lease on itself included, is what the guest and its holders have flocked. */
async function assertStatusIsTrue(world: World, guest: Guest, count: number): Promise<void> {
  const { code, stdout, stderr } = await world.run(["status", "--json", "vm1"]);
  assert.equal(code, 0, stderr);
  const [{ uuid, resources }] = JSON.parse(stdout).guests;
  assert.equal(resources.length, count);
  for (const { name, locked } of resources) assert.equal(locked, true, name);
  const inspected = await world.run(["inspect", "--json", `guest:${uuid}`]);
  const lease = JSON.parse(inspected.stdout).resource.identities[0].key;
  const keys = [lease, ...resources.flatMap(({ keys }: { keys: string[] }) => keys)];
  const told = keys.flatMap((key) => [`${world.lockspace}/${key}.a`, `${world.lockspace}/${key}.b`]).sort();
  const held = [guest.pid, ...holders(guest.pid)].flatMap(flockedFiles).sort();
  assert.deepEqual(held, told);
  const locked = lockFiles(world.lockspace).map((name) => `${world.lockspace}/${name}`).filter(isLocked);
  assert.deepEqual(locked, told);
}

function isLocked(path: string): boolean {
  using file = Deno.openSync(path, { read: true, write: true });
  return !file.tryLockSync(true);
}

/** What a guest's process has open, but for sockets, which come and go with the monitor's connections. */
function openIn(pid: number): string[] {
  return Array.from(Deno.readDirSync(`/proc/${pid}/fd`), ({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
    } catch {
      return "socket:"; // a connection that has just ended
    }
  }).filter((target) => !target.startsWith("socket:")).sort();
}

/** All files below the lockspace and the runtime directory. */
async function filesOf(world: World): Promise<string[]> {
  const { stdout } = await world.execute("find", [world.lockspace, world.runtimeDir, "-type", "f"]);
  return stdout.trim().split("\n").sort();
}

const GUESTS: Record<string, (world: World, disk: string) => Promise<Guest>> = {
  "QEMU with a monitor": async (world, disk) => (await monitoredGuest(world, disk)).guest,
  "QEMU without one": (world, disk) =>
    world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", ...qemuCommand(disk)]),
};

for (const [kind, start] of Object.entries(GUESTS)) {
  Deno.test(`${DISKS} disks come to ${kind} and go, ${ROUNDS} times, and nothing is left over`, async () => {
    await using world = await World.create();
    const own = await world.qcow2("own.qcow2");
    const names = Array.from({ length: DISKS }, (_, number) => `disk${number}`);
    const disks = await Promise.all(names.map((name) => world.disk(name)));
    const guest = await start(world, own);
    await assertStatusIsTrue(world, guest, 1);
    const [open, files] = [openIn(guest.pid), await filesOf(world)];
    for (let round = 0; round < ROUNDS; round++) {
      const manner = MANNERS[round % MANNERS.length]!;
      await plug(world, "acquire", { disks, manner });
      await assertStatusIsTrue(world, guest, 1 + DISKS);
      await plug(world, "release", { disks, manner });
      await assertStatusIsTrue(world, guest, 1);
    }
    await until("no holder is left", () => holders(guest.pid).length === 0, 2000);
    assert.deepEqual(openIn(guest.pid), open, "nothing is left open in the guest");
    await gc(world);
    // A key's generation stays for ever, and the guest's own lock file in the runtime directory as long as its record.
    const left = (await filesOf(world)).filter((path) => !files.includes(path));
    const allowed = /\/[0-9a-f]{64}\.d\/state\.json$|\/guests\/[0-9a-f-]{36}\.lock$/;
    assert.deepEqual(left.filter((path) => !allowed.test(path)), []);
    assert.equal(left.filter((path) => path.endsWith("/state.json")).length, 2 * DISKS);
    for (const path of files) assert.ok((await filesOf(world)).includes(path), path);
  });
}
