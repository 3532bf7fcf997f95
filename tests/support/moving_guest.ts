import type { Guest } from "./guest.ts";
import { until } from "./until.ts";
import { World } from "./world.ts";

/**
 * A sector that a PC starts from: at each tick of the timer it counts on, and writes the count to sector 1 of its disk. In
 * assembler: `l: incl 0x8000; int 0x13 (write one sector from 0x8000); sti; hlt; jmp l`, after setting up the segments.
 */
const BOOT_SECTOR = "31c08ed88ec08ed0bc0070" + // xor ax,ax; mov ds,ax; mov es,ax; mov ss,ax; mov sp,0x7000
  "66ff060080" + "b80103" + "bb0080" + "b90200" + "ba8000" + "cd13" + // count; write it
  "b02ee6e9" + "fb" + "f4" + "ebe5"; // a dot for the debugger; sti; hlt; again

/** Two hosts, as far as lockvisor can tell, that share a lockspace and a directory of images. */
export class TwoHosts implements AsyncDisposable {
  readonly one: World;
  readonly other: World;
  /** The directory of the images, which both hosts declare as the same storage. */
  readonly images: string;

  private constructor(one: World, other: World, images: string) {
    this.one = one;
    this.other = other;
    this.images = images;
  }

  static async create(): Promise<TwoHosts> {
    const one = await World.create({ hostId: "h1" });
    const other = await World.create({ hostId: "h2", lockspace: one.lockspace });
    const hosts = new TwoHosts(one, other, `${one.directory}/images`);
    await Deno.mkdir(hosts.images);
    for (const world of [one, other]) {
      await Deno.writeTextFile(world.configFile, `[[storage]]\npath = "${hosts.images}"\nid = "san1"\n`);
    }
    return hosts;
  }

  /** Where a guest goes to, on the other host. */
  destination(world: World): string {
    const { configFile, runtimeDir, hostId } = world;
    return `local:?config=${configFile}&runtime-dir=${runtimeDir}&host-id=${hostId}&lockspace=${world.lockspace}`;
  }

  /** What has another name on the other host. */
  mapping(from: World, to: World): string {
    return `${from.directory}/run=${to.directory}/run`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const world of [this.one, this.other]) {
      // A guest that has come is nobody's child.
      for (const pid of await guestsOf(world)) {
        try {
          Deno.kill(pid, "SIGKILL");
        } catch { /* it has ended */ }
      }
    }
    await this.other[Symbol.asyncDispose]();
    await this.one[Symbol.asyncDispose]();
  }
}

/** The processes of a host's guests, by its records. */
async function guestsOf(world: World): Promise<number[]> {
  const { stdout } = await world.run(["status", "--json"]);
  const { guests } = JSON.parse(stdout) as { guests: { pid: number }[] };
  return guests.map(({ pid }) => pid);
}

/** A disk that a PC starts from and that counts on in sector 1. */
export async function countingDisk(path: string): Promise<string> {
  const bytes = new Uint8Array(1024 * 1024);
  bytes.set(Uint8Array.fromHex(BOOT_SECTOR));
  bytes.set([0x55, 0xaa], 510);
  await Deno.writeFile(path, bytes);
  return path;
}

/** How far a guest has counted, by its disk. */
export async function countOn(disk: string): Promise<number> {
  using file = await Deno.open(disk);
  await file.seek(512, Deno.SeekMode.Start);
  const bytes = new Uint8Array(4);
  await file.read(bytes);
  return new DataView(bytes.buffer).getUint32(0, true);
}

/** A QEMU that counts on its disk. The devices that come before that have their addresses before it. */
export function countingCommand(disk: string, qmp: string, before: readonly string[] = []): string[] {
  return [
    "qemu-system-x86_64",
    ..."-accel tcg -M pc -nodefaults -no-user-config -display none -m 16".split(" "),
    ...before,
    "-blockdev",
    `driver=raw,node-name=d0,file.driver=file,file.filename=${disk.replaceAll(",", ",,")}`,
    "-device",
    "virtio-blk-pci,drive=d0,bootindex=1",
    "-qmp",
    `unix:${qmp},server=on,wait=off`,
  ];
}

/** The guest vm1, which counts on its disk, on a host. */
export async function countingGuest(
  { one, images }: TwoHosts,
  options: { name?: string; before?: readonly string[] } = {},
): Promise<{ guest: Guest; disk: string; qmp: string }> {
  const name = options.name ?? "vm1";
  const disk = await countingDisk(`${images}/${name}.img`);
  const qmp = `${one.runtimeDir}/${name}.qmp`;
  const command = countingCommand(disk, qmp, options.before);
  const args = ["run", "--name", name, "--qmp", qmp, "--disk", disk, "--", ...command];
  const guest = await one.startRunning(args);
  await until("the guest counts", async () => await countOn(disk) > 1);
  return { guest, disk, qmp };
}
