import assert from "node:assert/strict";
import { CountingDisk } from "./support/counting_disk.ts";
import { TwoHosts } from "./support/moving_guest.ts";
import { until } from "./support/until.ts";
import type { World } from "./support/world.ts";

/** How often the guest moves. `deno task soak moves` has it move more often. */
const MOVES = Number(Deno.env.get("LOCKVISOR_LOCAL_MOVES") ?? 6);

/** Tries to start a guest on the disk until it is told to end; what starts leaves a mark. */
async function steal(world: World, disk: string, { mark, isOver }: { mark: string; isOver: () => boolean }) {
  let refused = 0;
  const args = [
    "run",
    "--name",
    `thief-${world.hostId}`,
    "--disk",
    disk,
    "--",
    "sh",
    "-c",
    `echo >> ${mark}`,
  ];
  while (!isOver()) {
    const { code, stderr } = await world.run(args);
    assert.equal(code, 75, stderr);
    refused++;
  }
  return refused;
}

Deno.test(`migrate run: a guest that writes moves ${MOVES} times within one machine, and who else wants its disk never gets it`, async () => {
  await using hosts = await TwoHosts.create();
  const { one, other, images } = hosts;
  const disk = await CountingDisk.create(`${images}/vm1.qcow2`);
  const qmp = `${one.runtimeDir}/vm1.qmp`;
  const command = [
    "qemu-system-x86_64",
    ..."-accel tcg -M pc -nodefaults -no-user-config -display none -m 16".split(" "),
    "-blockdev",
    `driver=qcow2,node-name=d0,file.driver=file,file.filename=${disk.path}`,
    "-device",
    "virtio-blk-pci,drive=d0",
    "-qmp",
    `unix:${qmp},server=on,wait=off`,
  ];
  await one.startRunning(["run", "--name", "vm1", "--qmp", qmp, "--disk", disk.path, "--", ...command]);
  await until("the guest counts", () => disk.count() > 1);
  let isOver = false;
  const mark = `${images}/won`;
  const thieves = [one, other].map((world) => steal(world, disk.path, { mark, isOver: () => isOver }));

  let counted = disk.count();
  for (let move = 0; move < MOVES; move++) {
    const [from, to] = move % 2 === 0 ? [one, other] : [other, one];
    const args = ["--to", hosts.destination(to), "--map", hosts.mapping(from, to)];
    const moved = await from.run(["migrate", "run", "vm1", ...args]);
    assert.equal(moved.code, 0, `move ${move}: ${moved.stderr}`);
    await until("the guest counts on", () => disk.count() > counted);
    counted = disk.count();
  }
  isOver = true;
  for (const refused of await Promise.all(thieves)) assert.ok(refused > MOVES / 2, `${refused} were refused`);
  await assert.rejects(Deno.stat(mark), Deno.errors.NotFound, "somebody else has started");
  const stopped = await (MOVES % 2 === 0 ? one : other).run(["stop", "vm1"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.equal(await disk.faults(), "");
  assert.ok(disk.count() >= counted, "what was written is there");
});
