import assert from "node:assert/strict";
import { makeImages, must } from "./support/qemu_images.ts";
import { askQemu } from "./support/qemu_reality.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/** A command line, as each file in tests/qemu_command_lines has one. */
interface CommandLine {
  args: string[];
  /** The disks that are to be locked, by their paths from the images' directory, with the access. */
  disks: Record<string, string>;
  /** `none`: the file is mapped as memory, so QEMU's block layer does not know it. */
  nodes?: "none";
  /** `later`: nothing is attached yet, so QEMU has it open for reading until a device is plugged in. */
  writes?: "later";
  /** The socket of an NBD server that the disk is on. */
  network?: string;
}

const FOLDER = new URL("qemu_command_lines/", import.meta.url);

/** What lockvisor would lock: the dry run's disks by path, or by the socket that they are reached through. */
async function understood(world: World, { args, network }: CommandLine): Promise<Record<string, string>> {
  const result = await world.run([
    "run",
    "--name",
    "g",
    "--dry-run",
    "--json",
    "--",
    "qemu-system-x86_64",
    ...args,
  ]);
  assert.equal(result.code, 0, result.stderr);
  const { resources } = JSON.parse(result.stdout) as {
    resources: { type: string; name: string; access: string }[];
  };
  return Object.fromEntries(
    resources.filter(({ type }) => type === "disk").map(({ name, access }) => {
      if (network !== undefined) {
        const socket = /socket=(.*)$/.exec(name)?.[1] ?? name;
        return [socket, access];
      }
      return [Deno.realPathSync(name), access];
    }),
  );
}

Deno.test("what is locked for a QEMU command line is what QEMU opens", async (test) => {
  await using world = await World.create();
  const { directory } = world;
  await makeImages(directory);
  const served = new Deno.Command("qemu-nbd", {
    args: ["-k", `${directory}/nbd.sock`, "-f", "raw", "-t", "-e", "8", "c.raw"],
    cwd: directory,
    stdin: "null",
    stderr: "inherit",
  }).spawn();
  await until("the NBD server listens", () => {
    try {
      return Deno.statSync(`${directory}/nbd.sock`).isSocket === true;
    } catch {
      return false;
    }
  });
  try {
    const files = Array.from(Deno.readDirSync(FOLDER), ({ name }) => name).sort();
    assert.ok(files.length >= 60);
    for (const file of files) {
      const line: CommandLine = JSON.parse(Deno.readTextFileSync(new URL(file, FOLDER)));
      await test.step(file, async () => {
        const expected = Object.fromEntries(
          Object.entries(line.disks).map(([path, access]) => [`${directory}/${path}`, access]),
        );
        assert.deepEqual(await understood(world, line), expected, "as stated in the file");
        const { files, networks } = await askQemu(line.args, directory);
        if (line.network !== undefined) {
          assert.equal(networks.length, 1);
          assert.match(networks[0]!, new RegExp(line.network));
          return;
        }
        if (line.nodes === "none") return;
        assert.deepEqual([...files.keys()].sort(), Object.keys(expected).sort(), "as QEMU has it open");
        for (const [path, { written, readOnly }] of files) {
          if (line.writes === "later") assert.ok(!written);
          else assert.equal(expected[path] === "readonly", !written, `${path}: whether QEMU can write it`);
          if (readOnly) assert.equal(expected[path], "readonly", path);
        }
      });
    }
  } finally {
    served.kill("SIGTERM");
    await served.status;
  }
});

Deno.test("a block device of this host is locked as QEMU opens it", async () => {
  await using world = await World.create();
  const { directory } = world;
  await must(directory, "qemu-img", "create", "-q", "-f", "raw", "device.img", "16M");
  const attached = await world.execute("losetup", ["--find", "--show", `${directory}/device.img`]);
  assert.equal(attached.code, 0, `losetup needs root and loop devices: ${attached.stderr}`);
  const loop = attached.stdout.trim();
  try {
    for (
      const args of [
        ["-drive", `file=${loop},format=raw,if=virtio`],
        ["-blockdev", `driver=host_device,node-name=d0,filename=${loop}`],
        ["-hda", loop],
      ]
    ) {
      assert.deepEqual(await understood(world, { args, disks: {} }), { [loop]: "exclusive" });
      assert.deepEqual([...(await askQemu(args, directory)).files.keys()], [loop]);
    }
  } finally {
    await world.execute("losetup", ["--detach", loop]);
  }
});
