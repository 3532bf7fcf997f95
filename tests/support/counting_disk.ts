import { join } from "node:path";

const SECTOR = 512;

/**
 * A qcow2 image from which a guest starts that writes all the time: it counts in its memory, and writes the counter into the
 * second sector at each tick of its timer (boot_sector.s).
 */
export class CountingDisk {
  private constructor(readonly path: string, readonly counterOffset: number) {}

  /** @param head of the disk's geometry at which the counter is: each has 63 sectors */
  static async create(path: string, head = 0): Promise<CountingDisk> {
    const raw = `${path}.raw`;
    const image = new Uint8Array(16 * 1024 * 1024);
    image.set(atHead(await bootSector(), head));
    await Deno.writeFile(raw, image);
    await execute("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, path]);
    await Deno.remove(raw);
    const map = JSON.parse(await execute("qemu-img", ["map", "--output=json", path]));
    return new CountingDisk(path, map[0].offset + SECTOR);
  }

  /** What the guest has written last. */
  count(): number {
    using file = Deno.openSync(this.path, { read: true });
    file.seekSync(this.counterOffset, Deno.SeekMode.Start);
    const bytes = new Uint8Array(4);
    if (file.readSync(bytes) !== 4) throw new Error(`${this.path} is too short`);
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  /** What `qemu-img check` says of the image, which nobody may have open; empty when it is whole. */
  async faults(): Promise<string> {
    const args = ["check", "-q", this.path];
    const { code, stdout, stderr } = await new Deno.Command("qemu-img", { args }).output();
    const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    return code === 0 ? text : `exit status ${code}: ${text}`;
  }
}

/** The sector that is written is in the registers CX and DX: head and disk of INT 13h are in the latter. */
function atHead(code: Uint8Array, head: number): Uint8Array {
  const at = code.findIndex((byte, index) => byte === 0xba && code[index + 1] === 0x80);
  if (at < 0) throw new Error("the boot sector does not set DX as it did");
  const changed = code.slice();
  changed[at + 2] = head;
  return changed;
}

let assembled: Promise<Uint8Array> | undefined;

function bootSector(): Promise<Uint8Array> {
  return assembled ??= assemble();
}

async function assemble(): Promise<Uint8Array> {
  const directory = await Deno.makeTempDir({ prefix: "lockvisor-test-" });
  try {
    const [object, binary] = [join(directory, "boot.o"), join(directory, "boot.bin")];
    await execute("as", ["--32", "-o", object, join(import.meta.dirname!, "boot_sector.s")]);
    const format = ["-m", "elf_i386", "--oformat", "binary", "-Ttext", "0x7c00"];
    await execute("ld", [...format, "-o", binary, object]);
    return await Deno.readFile(binary);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function execute(program: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args }).output();
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}
