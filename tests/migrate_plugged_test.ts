import assert from "node:assert/strict";
import { QmpClient } from "../lib/qmp/client.ts";
import { flockedFiles } from "./support/kernel.ts";
import { countingGuest, countOn, TwoHosts } from "./support/moving_guest.ts";
import { SCSI_BUS, SCSI_DEVICE } from "./support/plug_scene.ts";
import { until } from "./support/until.ts";
import { BINARY, type Finished, type World } from "./support/world.ts";

interface SeenGuest {
  pid: number;
  state: string;
  resources: { name: string; access: string }[];
  locks: { held: number; total: number };
}

/** A guest that moves between two hosts, with whatever has been plugged into it. */
class PluggedScene implements AsyncDisposable {
  private constructor(readonly hosts: TwoHosts, readonly disk: string) {}

  static async start(before: (hosts: TwoHosts) => Promise<string[]>): Promise<PluggedScene> {
    const hosts = await TwoHosts.create();
    try {
      const { disk } = await countingGuest(hosts, { before: await before(hosts) });
      return new PluggedScene(hosts, disk);
    } catch (error) {
      await hosts[Symbol.asyncDispose]();
      throw error;
    }
  }

  moveArguments(from: World, to: World, destination = this.hosts.destination(to)): string[] {
    return ["migrate", "run", "vm1", "--to", destination, "--map", this.hosts.mapping(from, to)];
  }

  async move(from: World, to: World, ...more: string[]): Promise<void> {
    assertDone(await from.run([...this.moveArguments(from, to), ...more]));
  }

  /** What QEMU there would be started with, and what is told of that. */
  async dryRun(
    from: World,
    to: World,
  ): Promise<{ command: string[]; plugged: string[]; unplugged: string[] }> {
    const shown = await from.run([...this.moveArguments(from, to), "--dry-run", "--json"]);
    assertDone(shown);
    return JSON.parse(shown.stdout);
  }

  /** The guest runs here with all of its locks, and with what else is locked for nobody. Gives its disks, and the process. */
  async livesOn(world: World): Promise<{ pid: number; disks: string[] }> {
    const { stdout, stderr } = await world.run(["status", "--json"]);
    const [guest, ...more] = JSON.parse(stdout).guests as SeenGuest[];
    assert.deepEqual(more, [], stderr);
    assert.ok(guest);
    const { pid, state, resources, locks } = guest;
    assert.equal(state, "running");
    assert.equal(locks.held, locks.total);
    const slots = new Set(flockedFiles(pid).filter((path) => /\.[ab]$/.test(path)));
    assert.equal(slots.size, 2 * locks.total, "the kernel tells the same");
    const before = await countOn(this.disk);
    await until("the guest counts on", async () => await countOn(this.disk) > before);
    return {
      pid,
      disks: resources.map(({ name, access }) => `${name.split("/").at(-1)} ${access}`).sort(),
    };
  }

  /** Does something with the guest's monitor. */
  async ask<Result>(world: World, action: (qemu: QmpClient) => Promise<Result>): Promise<Result> {
    const qemu = await QmpClient.connect(`${world.runtimeDir}/vm1.qmp`);
    try {
      return await action(qemu);
    } finally {
      await qemu.close();
    }
  }

  /** The disks' devices by what they have open, with their places. */
  places(world: World): Promise<string[]> {
    return this.ask(world, async (qemu) => {
      const buses = await qemu.execute("query-pci") as { devices: { qdev_id: string; slot: number }[] }[];
      const pci = buses.flatMap(({ devices }) => devices).filter(({ slot }) => slot > 1)
        .map(({ qdev_id, slot }) => `${qdev_id || "-"} ${slot}`);
      const blocks = await qemu.execute("query-block") as { qdev?: string; inserted: { file: string } }[];
      const files = blocks.filter(({ qdev }) => qdev !== undefined).map(({ qdev, inserted }) =>
        `${/\/peripheral[^/]*\/([^/]+)/.exec(qdev!)?.[1] ?? qdev} ${inserted.file.split("/").at(-1)}`
      );
      const usb = await qemu.execute("human-monitor-command", { "command-line": "info usb" }) as string;
      const ports = [...usb.matchAll(/Port (\d+).*ID: (\w+)/g)].map(([, port, id]) => `${id} port ${port}`);
      return [...pci, ...files, ...ports].sort();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hosts[Symbol.asyncDispose]();
  }
}

function assertDone({ code, stderr }: Finished): void {
  assert.equal(code, 0, stderr);
}

async function overlay(world: World, path: string): Promise<{ path: string; base: string }> {
  const base = `${path}.base`;
  for (const args of [[base, "16M"], ["-b", base, "-F", "qcow2", path]]) {
    const made = await world.execute("qemu-img", ["create", "-q", "-f", "qcow2", ...args]);
    assert.equal(made.code, 0, made.stderr);
  }
  return { path, base };
}

async function isFree(world: World, disk: string): Promise<boolean> {
  const { code } = await world.run(["run", "--name", "vm2", "--disk", disk, "--", "true"]);
  assert.ok(code === 0 || code === 75);
  return code === 0;
}

Deno.test("migrate run: disks that were plugged in move along, to their places, and back without one that was unplugged", async () => {
  const usb = ["-device", "usb-ehci,id=usb0"];
  await using scene = await PluggedScene.start(() => Promise.resolve([...SCSI_BUS, ...usb]));
  const { hosts: { one, other, images } } = scene;
  const data = await overlay(one, `${images}/data`);
  const [log, first, stick] = [`${images}/log`, `${images}/first`, `${images}/stick`];
  for (const disk of [log, first, stick]) await Deno.writeFile(disk, new Uint8Array(1024 * 1024));
  // wwn is larger than what a JSON reader keeps; none of these texts has its type in the device.
  const scsi =
    `${SCSI_DEVICE},scsi-id=5,lun=2,wwn=0x5000c500a0b1c2d3,physical_block_size=4k,logical_block_size=4k,removable=on`;
  assertDone(
    await one.run(["disk", "plug", "vm1", data.path, "--format", "qcow2", "--device", scsi, "--id", "data"]),
  );
  assertDone(
    await one.run([
      "disk",
      "plug",
      "vm1",
      log,
      "--device",
      "virtio-blk-pci,addr=9,serial=log",
      "--id",
      "log",
    ]),
  );
  for (const [path, id] of [[first, "first"], [stick, "stick"]] as const) {
    assertDone(await one.run(["disk", "plug", "vm1", path, "--device", "usb-storage", "--id", id]));
  }
  assertDone(await one.run(["disk", "unplug", "vm1", "first"]));
  const places = await scene.places(one);
  assert.deepEqual(places, [
    "- 4",
    "data data",
    "device[0] vm1.img",
    "log 9",
    "log log",
    "scsi0 2",
    "stick port 2",
    "stick stick",
    "usb0 3",
  ]);

  const shown = await scene.dryRun(one, other);
  assert.deepEqual([shown.plugged, shown.unplugged], [["data", "log", "stick"], []]);
  assert.ok(shown.command.join(" ").includes(`"wwn":${0x5000c500a0b1c2d3n},`));
  await scene.move(one, other);
  const { disks } = await scene.livesOn(other);
  assert.deepEqual(disks, [
    "data exclusive",
    "data.base readonly",
    "log exclusive",
    "stick exclusive",
    "vm1.img exclusive",
  ]);
  assert.deepEqual(await scene.places(other), places);
  const property = (name: string) =>
    scene.ask(other, (qemu) => qemu.execute("qom-get", { path: "/machine/peripheral/data", property: name }));
  assert.deepEqual(
    [await property("scsi-id"), await property("lun"), await property("logical_block_size")],
    [5, 2, 4096],
  );
  for (const disk of [data.path, log]) assert.equal(await isFree(one, disk), false);

  assertDone(await other.run(["disk", "unplug", "vm1", "data"]));
  for (const disk of [data.path, data.base]) assert.equal(await isFree(one, disk), true);
  const { command, unplugged } = await scene.dryRun(other, one);
  assert.deepEqual([unplugged, command.join(" ").includes("data")], [["data"], false]);
  await scene.move(other, one);
  assert.deepEqual((await scene.livesOn(one)).disks, [
    "log exclusive",
    "stick exclusive",
    "vm1.img exclusive",
  ]);
  assert.deepEqual(await scene.places(one), places.filter((place) => !place.startsWith("data ")));
  for (const disk of [data.path, data.base]) assert.equal(await isFree(other, disk), true);
});

Deno.test("migrate run: devices stay where they are when one before them has gone, and another one came in its place", async () => {
  await using scene = await PluggedScene.start(async ({ images }) => {
    await Deno.writeFile(`${images}/old`, new Uint8Array(1024 * 1024));
    const node = `driver=raw,node-name=o,file.driver=file,file.filename=${images}/old`;
    return ["-blockdev", node, "-device", "virtio-blk,id=old,drive=o", ...SCSI_BUS];
  });
  const { hosts: { one, other, images } } = scene;
  assert.deepEqual(await scene.places(one), ["- 4", "device[0] vm1.img", "old 2", "old old", "scsi0 3"]);
  await one.run(["disk", "unplug", "vm1", "old", "--timeout", "0"]);
  // A PC's firmware takes a device away that was to go when it starts anew.
  await scene.ask(one, (qemu) => qemu.execute("system_reset"));
  await until("the guest has given it up", async () => (await scene.places(one)).length === 3);
  const half = await one.run(scene.moveArguments(one, other));
  assert.equal(half.code, 65);
  assert.match(
    half.stderr,
    /disk "old" is half plugged in or half unplugged; .*lockvisor disk unplug vm1 old\n$/,
  );
  assertDone(await one.run(["disk", "unplug", "vm1", "old"]));
  const shown = await one.run([...scene.moveArguments(one, other), "--dry-run"]);
  assert.match(shown.stdout, /\nleft out, since it was unplugged: "old"\n/);
  assert.doesNotMatch(shown.stdout, /node-name=o/);

  await Deno.writeFile(`${images}/new`, new Uint8Array(1024 * 1024));
  assertDone(await one.run(["disk", "plug", "vm1", `${images}/new`, "--id", "old"]));
  const places = await scene.places(one);
  assert.deepEqual(places, ["- 4", "device[0] vm1.img", "old 2", "old new", "scsi0 3"]);
  const there = await scene.dryRun(one, other);
  assert.deepEqual([there.plugged, there.unplugged], [["old"], []]);
  await scene.move(one, other);
  assert.deepEqual((await scene.livesOn(other)).disks, ["new exclusive", "vm1.img exclusive"]);
  assert.deepEqual(await scene.places(other), places);
});

Deno.test("migrate run: what was plugged in past lockvisor, or meanwhile, is refused before anything is done", async () => {
  await using scene = await PluggedScene.start(() => Promise.resolve(SCSI_BUS));
  const { hosts: { one, other, images } } = scene;
  const late = `${images}/late`;
  await Deno.writeFile(late, new Uint8Array(1024 * 1024));
  const program = `${one.directory}/late.sh`;
  const plug = `'${BINARY}' disk plug vm1 '${late}' --id late --device ${SCSI_DEVICE}`;
  await Deno.writeTextFile(
    program,
    `#!/bin/sh\n${plug} </dev/null >/dev/null 2>&1\nexec '${BINARY}' "$@"\n`,
    {
      mode: 0o700,
    },
  );
  const destination = `${scene.hosts.destination(other)}&program=${encodeURIComponent(program)}`;
  const meanwhile = await one.run(scene.moveArguments(one, other, destination));
  assert.equal(meanwhile.code, 75, meanwhile.stderr);
  assert.match(
    meanwhile.stderr,
    /has got, or given up, a disk since its migration was planned; run migrate run again\n$/,
  );
  assert.deepEqual((await scene.livesOn(one)).disks, ["late exclusive", "vm1.img exclusive"]);
  assert.equal((await one.run(["migrate", "status"])).stdout, "no migrations\n");

  const again = ["disk", "plug", "vm1", late, "--id", "late", "--device", `${SCSI_DEVICE},serial=other`];
  assertDone(await one.run(again));
  const { command } = await scene.dryRun(one, other);
  assert.deepEqual([command.join(" ").includes(late), command.join(" ").includes("serial")], [true, false]);

  const node = { driver: "null-co", "node-name": "n", "read-zeroes": true };
  const device = { driver: "scsi-hd", id: "odd", drive: "n", bus: "scsi0.0", "scsi-id": 7 };
  await scene.ask(one, async (qemu) => {
    await qemu.execute("blockdev-add", node);
    await qemu.execute("device_add", device);
  });
  const odd = await one.run(scene.moveArguments(one, other));
  assert.equal(odd.code, 65);
  assert.match(
    odd.stderr,
    /its QEMU has the device "odd" \(scsi-hd\), which its command there has not; .*--add device=scsi-hd,id=odd,/,
  );
  const added = ["--add", `blockdev=${JSON.stringify(node)}`, "--add", `device=${JSON.stringify(device)}`];
  await scene.move(one, other, ...added);
  await scene.livesOn(other);
  assert.ok((await scene.places(other)).includes("late late"));
});
