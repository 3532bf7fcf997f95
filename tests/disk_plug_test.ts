import assert from "node:assert/strict";
import type { FailpointName } from "../lib/failpoint_names.ts";
import { FAILPOINT_BINARY } from "./crash/crash.ts";
import { PlugScene, SCSI_DEVICE } from "./support/plug_scene.ts";
import { unstatedBacking } from "./support/qemu_images.ts";
import { type Finished, World } from "./support/world.ts";

/* A kill at each point, with `attach` and the same command again afterwards, is in crash/plug_test.ts. */

const BOOT = "vm1.boot";
const SCSI = ["--device", SCSI_DEVICE];
const QCOW2 = ["--format", "qcow2", ...SCSI];

function assertDone({ code, stderr }: Finished): void {
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
}

Deno.test("disk plug locks a disk with its backing file, and disk unplug releases what nothing else uses", async () => {
  await using world = await World.create();
  const scene = await PlugScene.start(world);
  const before = await scene.state();
  const base = await world.qcow2("base");
  const [a, b] = [await scene.overlay("a", base), await scene.overlay("b", base)];

  const plugged = await scene.plug(a, ...QCOW2, "--id", "a");
  assertDone(plugged);
  assert.equal(
    plugged.stdout,
    `disk ${a} (exclusive): locked for guest "vm1"\ndisk ${base} (readonly): locked for guest "vm1"\n` +
      `disk ${a}: plugged into guest "vm1" as "a"\n`,
  );
  assertDone(await scene.plug(b, ...QCOW2, "--id", "b"));
  const full = await scene.state();
  assert.deepEqual(full.devices, ["a", "b", "scsi0"]);
  assert.deepEqual(full.files, ["a", "b", "base", BOOT]);
  assert.deepEqual(await scene.locked(), ["a", "b", "base", BOOT]);
  assert.equal((await world.run(["run", "--name", "vm2", "--disk", base, "--", "true"])).code, 75);

  const again = await scene.plug(a, ...QCOW2, "--id", "a");
  assertDone(again);
  assert.match(again.stdout, /\ndisk \S+\/a: was plugged already into guest "vm1" as "a"\n$/);
  assert.deepEqual(await scene.state(), full);

  const unplugged = await scene.unplug("a");
  assertDone(unplugged);
  assert.equal(
    unplugged.stdout,
    `disk ${a} (exclusive): released for guest "vm1"\ndisk "a": unplugged from guest "vm1"\n`,
  );
  assert.deepEqual(await scene.locked(), ["b", "base", BOOT]);
  assertDone(await scene.unplug("b"));
  assert.deepEqual(await scene.locked(), [BOOT]);
  assert.deepEqual(await scene.state(), before);
  const twice = await scene.unplug("b");
  assert.deepEqual([twice.code, twice.stdout], [0, `disk "b": was not plugged into guest "vm1"\n`]);
  assert.match(twice.stderr, /^lockvisor: warning: guest "vm1" has no disk "b"\n$/);
});

Deno.test("a guest that ignores the request keeps the disk and its lock: 75, and 75 again", async () => {
  await using world = await World.create();
  const scene = await PlugScene.start(world);
  const disk = await world.disk("a");
  const plugged = await scene.plug(disk, "--json");
  assertDone(plugged);
  const { disk: { id }, outcome } = JSON.parse(plugged.stdout);
  assert.equal(outcome, "plugged");
  assert.match(id, /^disk-[0-9a-f]{8}$/);
  const full = await scene.state();
  for (const timeout of ["100ms", "1s"]) {
    const ignored = await scene.unplug(id, "--timeout", timeout);
    assert.equal(ignored.code, 75, ignored.stderr);
    assert.match(ignored.stderr, /has not given the disk up within \S+ s, .* stays plugged in and locked/);
    assert.deepEqual(await scene.locked(), ["a", BOOT]);
    assert.deepEqual(await scene.state(), full);
  }
  const same = await scene.plug(disk, "--json");
  assert.equal(JSON.parse(same.stdout).outcome, "was-plugged");
});

Deno.test("whatever fails, QEMU and the locks are as they were", async () => {
  await using world = await World.create();
  const scene = await PlugScene.start(world);
  const base = await world.qcow2("base");
  const [a, b, c] = [await scene.overlay("a", base), await world.disk("b"), await world.disk("c")];
  const free = await scene.overlay("free", await world.qcow2("free-base"));
  assertDone(await world.run(["acquire", "vm1", "--disk", b]));
  assertDone(await scene.plug(c, ...SCSI, "--id", "c"));
  await world.startRunning(["run", "--name", "vm2", "--disk", base, "--", "sleep", "600"]);
  const [before, locked] = [await scene.state(), await scene.locked()];
  const refusals: [() => Promise<Finished>, number, RegExp][] = [
    [() => scene.plug(a, ...QCOW2), 75, /^lockvisor: disk \S+\/base is locked by guest "vm2"/],
    [
      () => scene.plug(b, "--device", "scsi-hd,bus=no.0"),
      65,
      /refuses the disk \(device_add: Bus 'no.0' not found\)/,
    ],
    [
      () => scene.plug(free, "--format", "qcow2", "--device", "no-such-device"),
      65,
      /nothing was locked for it/,
    ],
    [() => scene.plug(b, "--device", "no-such-device"), 65, /refuses the disk \(device_add: /],
    [() => scene.plug(b, "--device", `${SCSI_DEVICE},bogus=1`), 65, /refuses the disk \(device_add: /],
    [() => scene.plug(b, ...QCOW2), 65, /b/],
    [() => scene.plug(b, ...SCSI, "--id", "scsi0"), 65, /has something else under the id "scsi0"/],
    [() => scene.plug(b, ...SCSI, "--id", "c"), 65, /has something else under the id "c"/],
    [() => scene.plug(`${c},access=readonly`, ...SCSI), 65, /is locked by this guest with access exclusive/],
    [() => scene.plug(`${world.directory}/nowhere`, ...SCSI), 65, /nowhere/],
    [() => scene.plug("nbd://host/export"), 65, /is on a network: lock it with lockvisor acquire/],
    [() => scene.unplug("scsi0"), 65, /the device "scsi0" of guest "vm1" has no disk in it/],
    [() => scene.plug(b, "--device", "scsi-hd,drive=d0"), 64, /leave drive= out/],
    [() => scene.plug(b, "--device", "id=x"), 64, /it names no driver/],
    [() => scene.plug(b, "--id", "1x"), 64, /is not one that QEMU takes/],
    [() => scene.plug(b, "--id", "x", "--device", "scsi-hd,id=y"), 64, /give one/],
    [() => scene.plug(b, "--format", "nbd"), 64, /is no format of images/],
  ];
  for (const [attempt, code, says] of refusals) {
    const refused = await attempt();
    assert.equal(refused.code, code, refused.stderr);
    assert.match(refused.stderr, says);
    assert.deepEqual(await scene.state(), before, refused.stderr);
    assert.deepEqual(await scene.locked(), locked, refused.stderr);
  }
});

Deno.test("a raw disk is plugged in readonly or shared, and an image with a format is never shared", async () => {
  await using world = await World.create();
  const [one, two] = [await PlugScene.start(world, "vm1"), await PlugScene.start(world, "vm2")];
  const [raw, image] = [await world.disk("raw"), await world.qcow2("image")];
  for (const scene of [one, two]) {
    assertDone(await scene.plug(`${raw},access=shared`, ...SCSI, "--id", "s"));
    assertDone(await scene.plug(`${image},access=readonly`, ...QCOW2, "--id", "r"));
    const { nodes } = await scene.state();
    for (const line of ["s-img raw", "s-file file", "r-img qcow2 readonly", "r-file file readonly"]) {
      assert.ok(nodes.includes(line), `${line}: ${nodes}`);
    }
  }
  for (const scene of [one, two]) {
    for (const id of ["s", "r"]) assertDone(await scene.unplug(id));
    assert.deepEqual(await scene.locked(), [`${scene.guest}.boot`]);
  }
  const shared = await one.plug(`${image},access=shared`, ...QCOW2);
  assert.equal(shared.code, 65);
  assert.match(shared.stderr, /an image of format qcow2 has one writer/);
  const unseen = await one.plug(raw, "--device", `${SCSI_DEVICE},share-rw=on`);
  assert.equal(unseen.code, 65);
  assert.match(unseen.stderr, /state access=shared as well/);
});

Deno.test("without a format the file itself is locked, and QEMU does not look into it", async () => {
  await using world = await World.create();
  const scene = await PlugScene.start(world);
  const overlay = await scene.overlay("a", await world.qcow2("base"));
  assertDone(await scene.plug(overlay, "--id", "a", "--device", `{"driver":"scsi-hd","bus":"scsi0.0"}`));
  assert.deepEqual(await scene.locked(), ["a", BOOT]);
  const { nodes, files } = await scene.state();
  assert.ok(nodes.includes("a-img raw"), `${nodes}`);
  assert.deepEqual(files, ["a", BOOT]);
});

Deno.test("a backing file whose format nobody states is locked, with a warning", async () => {
  await using world = await World.create();
  const scene = await PlugScene.start(world);
  await world.qcow2("base");
  await unstatedBacking(world.directory, "a", "base");
  const plugged = await scene.plug(`${world.directory}/a`, ...QCOW2, "--id", "a");
  assert.equal(plugged.code, 0, plugged.stderr);
  assert.match(
    plugged.stderr,
    /^lockvisor: warning: disk \S+\/base: its overlay does not state its format; /,
  );
  assert.deepEqual(await scene.locked(), ["a", "base", BOOT]);
});

Deno.test("a disk from the start is unplugged and released too", async () => {
  await using world = await World.create();
  const cold = await world.disk("cold");
  const scene = await PlugScene.start(world, "vm1", [
    "-drive",
    `if=none,id=cold,format=raw,file=${cold}`,
    "-device",
    `${SCSI_DEVICE},drive=cold,id=first`,
  ]);
  assert.deepEqual(await scene.locked(), ["cold", BOOT]);
  assertDone(await scene.unplug("first"));
  assert.deepEqual(await scene.locked(), [BOOT]);
  assert.deepEqual((await scene.state()).files, [BOOT]);
});

Deno.test("a disk on PCI Express goes where the guest has not switched the slot on", async () => {
  await using world = await World.create();
  const slot = ["-device", "pcie-root-port,id=port1,chassis=1"];
  const natively = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"];
  const scene = await PlugScene.start(world, "vm1", ["-M", "q35", ...natively, ...slot]);
  const disk = await world.disk("a");
  assertDone(await scene.plug(disk, "--device", "virtio-blk-pci,bus=port1,serial=x", "--id", "a"));
  assert.deepEqual(await scene.locked(), ["a", BOOT]);
  assertDone(await scene.unplug("a"));
  assert.deepEqual(await scene.locked(), [BOOT]);
  assert.deepEqual((await scene.state()).files, [BOOT]);
});

Deno.test("a guest without its QMP socket is refused, and told what to do", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--", "sleep", "600"]);
  for (const args of [["plug", "vm1", disk], ["unplug", "vm1", "x"]]) {
    const refused = await world.run(["disk", ...args]);
    assert.equal(refused.code, 65);
    assert.match(
      refused.stderr,
      /guest "vm1" was started without its QMP socket: start it with run --qmp PATH/,
    );
  }
  assert.equal((await world.run(["check", "--disk", disk])).code, 0);
});

Deno.test("the same disk plugged in by several at once, and refused to some of them, stays locked", async () => {
  await using world = await World.create();
  const scene = await PlugScene.start(world);
  const disk = await world.disk("a");
  const attempts = await Promise.all([
    ...[1, 2, 3].map(() => scene.plug(disk, ...SCSI, "--id", "a", "--json")),
    ...[1, 2, 3].map(() => scene.plug(disk, "--device", "no-such-device", "--id", "b", "--json")),
  ]);
  const outcomes = attempts.map(({ code, stdout }) => code === 0 ? JSON.parse(stdout).outcome : code);
  assert.deepEqual(outcomes.slice(0, 3).sort(), ["plugged", "was-plugged", "was-plugged"]);
  assert.deepEqual(outcomes.slice(3), [65, 65, 65]);
  assert.deepEqual(await scene.locked(), ["a", BOOT]);
  assert.deepEqual((await scene.state()).devices, ["a", "scsi0"]);
});

Deno.test("a disk that a second device has too stays locked until that has gone as well", async () => {
  await using world = await World.create();
  const scene = await PlugScene.start(world);
  assertDone(await scene.plug(`${await world.disk("a")},access=shared`, ...SCSI, "--id", "a"));
  await scene.ask((qemu) =>
    qemu.execute("device_add", {
      driver: "scsi-hd",
      bus: "scsi0.0",
      id: "second",
      drive: "a-img",
      "share-rw": true,
    })
  );
  assertDone(await scene.unplug("a"));
  assert.deepEqual(await scene.locked(), ["a", BOOT]);
  assertDone(await scene.unplug("second"));
  assert.deepEqual(await scene.locked(), [BOOT]);
  assert.deepEqual((await scene.state()).files, [BOOT]);
});

Deno.test("a disk is unplugged and released although the guest's record was lost and made again", async () => {
  await using world = await World.create();
  const scene = await PlugScene.start(world);
  const disk = await scene.overlay("a", await world.qcow2("base"));
  assertDone(await scene.plug(disk, ...QCOW2, "--id", "a"));
  await Deno.remove(`${world.runtimeDir}/guests`, { recursive: true });
  assert.equal((await world.run(["attach"])).code, 0);
  assert.deepEqual(await scene.locked(), ["a", "base", BOOT]);
  assertDone(await scene.unplug("a"));
  assert.deepEqual(await scene.locked(), [BOOT]);
  assert.deepEqual((await scene.state()).files, [BOOT]);
});

Deno.test("a QEMU that does not answer is not plugged into: nothing is locked", async () => {
  await using world = await World.create();
  const scene = await PlugScene.start(world);
  const disk = await world.disk("a");
  const [{ pid }] = JSON.parse((await world.run(["status", "--json"])).stdout).guests;
  Deno.kill(pid, "SIGSTOP");
  for (const attempt of [scene.plug(disk, ...SCSI), scene.unplug("a")]) {
    const refused = await attempt;
    assert.equal(refused.code, 69, refused.stderr);
  }
  assert.equal((await world.run(["check", "--disk", disk])).code, 0);
  Deno.kill(pid, "SIGCONT");
  assertDone(await scene.plug(disk, ...SCSI));
});

const PLUG_POINTS = [
  "disk-plug.locked",
  "disk-plug.node-added",
  "disk-plug.device-added",
] as const satisfies FailpointName[];

for (const point of PLUG_POINTS) {
  Deno.test(`disk plug, killed at ${point}: an unplug takes all of it back`, async () => {
    await using world = await World.create();
    const scene = await PlugScene.start(world);
    const before = await scene.state();
    await killedPlug(world, scene, point);
    assertDone(await scene.unplug("a"));
    assert.deepEqual(await scene.locked(), [BOOT]);
    assert.deepEqual(await scene.state(), before);
  });
}

Deno.test("a killed disk plug that fails when it is repeated is taken back, and what the guest had before stays", async () => {
  await using world = await World.create();
  const scene = await PlugScene.start(world);
  const before = await scene.state();
  const disk = await killedPlug(world, scene, "disk-plug.node-added", async (base) => {
    assertDone(await world.run(["acquire", "vm1", "--disk", `${base},access=readonly`]));
  });
  const refused = await scene.plug(disk, "--format", "qcow2", "--device", "no-such-device", "--id", "a");
  assert.equal(refused.code, 65, refused.stderr);
  assert.deepEqual(await scene.locked(), ["base", BOOT]);
  assert.deepEqual(await scene.state(), before);
});

/** Plugs the overlay `a` in, and is killed. @returns its path */
async function killedPlug(
  world: World,
  scene: PlugScene,
  point: FailpointName,
  prepare: (base: string) => Promise<void> = () => Promise.resolve(),
): Promise<string> {
  const base = await world.qcow2("base");
  const disk = await scene.overlay("a", base);
  await prepare(base);
  const args = ["disk", "plug", "vm1", disk, ...QCOW2, "--id", "a"];
  const killed = await world.execute(FAILPOINT_BINARY, args, { env: { LOCKVISOR_FAILPOINT: point } });
  assert.equal(killed.signal, "SIGKILL", killed.stderr);
  return disk;
}
