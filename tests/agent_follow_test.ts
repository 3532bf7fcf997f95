import assert from "node:assert/strict";
import type { QmpClient } from "../lib/qmp/client.ts";
import { Agent } from "./support/agent.ts";
import { recordOf, Told } from "./support/agent_scene.ts";
import { PlugScene } from "./support/plug_scene.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/* Others than lockvisor change what a guest has open, and the agent has its locks follow. */

const OFTEN = ["--audit-interval", "200ms"];
const RARELY = ["--audit-interval", "1h", "--reconcile-interval", "1h"];

/** What somebody else may have of a disk now: nothing, reading, or all. */
async function left(world: World, disk: string): Promise<"nothing" | "reading" | "all"> {
  if ((await world.run(["check", "--disk", disk])).code === 0) return "all";
  return (await world.run(["check", "--disk", `${disk},access=readonly`])).code === 0 ? "reading" : "nothing";
}

async function untilLeft(
  world: World,
  disk: string,
  wanted: Awaited<ReturnType<typeof left>>,
): Promise<void> {
  await until(`of ${disk} others can have ${wanted}`, async () => await left(world, disk) === wanted);
}

/** Waits until the agent has compared the guest for the first time, and is done with it. */
async function compared(world: World): Promise<void> {
  await until("it was compared", () => recordOf(world, "vm1").resources.every(({ seen }) => seen));
  const { code, stderr } = await world.run(["reconcile", "vm1"]);
  assert.deepEqual([code, stderr], [0, ""]);
}

/** Somebody else's snapshot of the guest's own disk. */
async function snapshotByHand(qemu: QmpClient, overlay: string): Promise<void> {
  await qemu.execute("blockdev-snapshot-sync", {
    "node-name": "d0",
    "snapshot-file": overlay,
    "snapshot-node-name": "o0",
  });
}

Deno.test("the agent has the locks of a guest follow a snapshot that somebody else takes", async () => {
  await using world = await World.create();
  await using agent = await Agent.start(world, OFTEN);
  const scene = await PlugScene.start(world);
  const [boot, overlay] = [`${world.directory}/vm1.boot`, `${world.directory}/overlay`];
  await compared(world);
  assert.equal(await left(world, boot), "nothing");

  await scene.ask((qemu) => snapshotByHand(qemu, overlay));
  await untilLeft(world, overlay, "nothing");
  await untilLeft(world, boot, "reading");
  const told = new Told(agent);
  await told.first("vm1", "lock-changed");
  const messages = told.about("vm1").map(({ message }) => message);
  assert.ok(messages.includes(`guest "vm1" has the locks on disk ${overlay} (exclusive)`));
  assert.ok(
    messages.includes(`guest "vm1" has disk ${boot} (readonly), with another access than before (exclusive)`),
  );
  assert.deepEqual(told.of("problem").map(({ message }) => message), []);
});

Deno.test("a QMP socket of the agent's own tells it of block jobs at once", async () => {
  await using world = await World.create();
  const events = [
    "-chardev",
    `socket,id=lockvisor-events,path=${world.directory}/events,server=on,wait=off`,
    "-mon",
    "chardev=lockvisor-events,mode=control",
  ];
  const scene = await PlugScene.start(world, "vm1", events);
  const [boot, overlay] = [`${world.directory}/vm1.boot`, `${world.directory}/overlay`];
  await scene.ask((qemu) => snapshotByHand(qemu, overlay));

  // It looks for the first time when it starts, and then not for an hour.
  await using _agent = await Agent.start(world, RARELY);
  await compared(world);
  assert.equal(await left(world, boot), "reading");
  await scene.ask(async (qemu) => {
    await qemu.execute("block-commit", { device: "o0", "job-id": "commit" });
    await untilLeft(world, boot, "nothing");
    await until("the job is ready", async () => {
      const jobs = await qemu.execute("query-jobs") as { status: string }[];
      return jobs[0]?.status === "ready";
    });
    await qemu.execute("job-complete", { id: "commit" });
  });
  await untilLeft(world, overlay, "all");
  assert.equal(await left(world, boot), "nothing");
});

Deno.test("while somebody else talks to the only monitor the descriptors of QEMU tell", async () => {
  await using world = await World.create();
  await using _agent = await Agent.start(world, OFTEN);
  const scene = await PlugScene.start(world);
  await compared(world);
  const overlay = `${world.directory}/overlay`;
  await scene.ask(async (qemu) => {
    await snapshotByHand(qemu, overlay);
    await untilLeft(world, overlay, "nothing");
  });
});

Deno.test("what no descriptor and no event tells of is found by asking from time to time", async () => {
  await using world = await World.create();
  const served = await world.disk("served");
  const socket = `${world.directory}/nbd`;
  const server = new Deno.Command("qemu-nbd", {
    args: ["--persistent", "--format=raw", `--socket=${socket}`, served],
  }).spawn();
  try {
    await until("the server listens", () => Deno.stat(socket).then(() => true, () => false));
    await using agent = await Agent.start(world, [...OFTEN, "--reconcile-interval", "500ms"]);
    const scene = await PlugScene.start(world);
    const nbd = { driver: "nbd", "node-name": "far", server: { type: "unix", path: socket } };
    await scene.ask((qemu) => qemu.execute("blockdev-add", nbd));
    const granted = () => new Told(agent).of("lock-granted").filter(({ message }) => message.includes("nbd"));
    await until("the network disk is locked", () => granted().length === 1);
    await scene.ask((qemu) => qemu.execute("blockdev-del", { "node-name": "far" }));
    await new Told(agent).first("vm1", "lock-released");
  } finally {
    server.kill();
    await server.status;
  }
});

Deno.test("what somebody else has is told as a conflict, and locked when it is free", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const other = await world.startRunning(["run", "--name", "vm2", "--disk", disk, "--", "sleep", "600"]);
  await using agent = await Agent.start(world, OFTEN);
  const scene = await PlugScene.start(world);
  const file = { driver: "file", filename: disk, "node-name": "f" };
  await scene.ask(async (qemu) => {
    await qemu.execute("blockdev-add", { driver: "raw", "node-name": "a", file });
    await qemu.execute("device_add", { driver: "scsi-hd", bus: "scsi0.0", id: "a", drive: "a" });
  });
  const told = new Told(agent);
  const conflict = await told.first("vm1", "lock-conflict");
  assert.equal(conflict.holder?.name, "vm2");
  const { stdout } = await world.run(["status", "vm1"]);
  assert.match(stdout, /without the lock/i);
  await other.kill();
  await until(
    "it has the lock",
    () => told.about("vm1").some(({ type: _, message }) => message.includes(`has the locks on disk ${disk}`)),
  );
  assert.equal(await left(world, disk), "nothing");
});
