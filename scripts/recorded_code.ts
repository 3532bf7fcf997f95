import { join } from "node:path";
import { capture, tail } from "./capture.ts";
import { cleanupStack, temporaryFolder } from "./cleanup.ts";
import { Failure } from "./failure.ts";

/**
 * V8 reads JavaScript twice: all of it when it is loaded, and each function again when it first runs, and makes code
 * for its interpreter. That was three quarters of what the start of a guest took beside an empty program's. So a start is
 * rehearsed while the program is built, and the code that V8 has then is built in.
 *
 * It is no machine code, and V8 takes it only if its own version and its flags are those of the rehearsal; otherwise it
 * does its work anew.
 */

/** The status with which a start ends whose command is there but cannot run: its interpreter is missing. */
const NOT_FOUND = 127;

/**
 * Starts a guest with a program that records, in a world of its own. The first start becomes its command and records
 * nothing, but leaves behind what a start finds as a rule: lock files, notes, the record of a guest that has ended. The
 * second does everything up to execve(2), which fails, so it ends and records.
 * @throws {Failure} when the rehearsal does not go that way
 */
export async function rehearse(program: string): Promise<void> {
  using stack = cleanupStack();
  const world = temporaryFolder(stack);
  const [disk, config, unstartable] = ["disk", "lockvisor.toml", "unstartable"].map((name) =>
    join(world, name)
  ) as [string, string, string];
  Deno.writeTextFileSync(disk, "");
  Deno.writeTextFileSync(config, "");
  Deno.writeTextFileSync(unstartable, `#!${join(world, "absent")}\n`, { mode: 0o755 });
  const lockspace = join(world, "lockspace");
  const env = {
    LOCKVISOR_CONFIG: config,
    LOCKVISOR_LOCKSPACE: lockspace,
    LOCKVISOR_RUNTIME_DIR: join(world, "run"),
    LOCKVISOR_HOST_ID: "rehearsal",
  };
  const step = async (status: number, ...args: string[]) => {
    const { code, stderr } = await capture(program, args, { cwd: world, env });
    if (code === status) return;
    throw new Failure(
      `${args[0]} ended with ${code} in the rehearsal of a start, not with ${status}:\n${tail(stderr)}`,
    );
  };
  const start = ["run", "--name", "rehearsal", "--disk", disk, "--"];
  await step(0, "init", lockspace);
  await step(0, ...start, "true");
  const top = writeChain(world);
  const qemu = join(world, "qemu-system-rehearsal");
  Deno.symlinkSync(unstartable, qemu);
  await step(
    NOT_FOUND,
    "run",
    "--",
    qemu,
    ...QEMU_OPTIONS,
    "-drive",
    `file=${top},format=qcow2,if=none,id=d0`,
  );
  await step(NOT_FOUND, ...start, unstartable);
}

/** What QEMU guests are started with as a rule. */
const QEMU_OPTIONS = [
  ..."-name rehearsal,debug-threads=on -uuid 8c1a4b5e-2b6b-4c7e-9d65-3b7c5c0b1f2a -M q35 -m 64 -no-user-config"
    .split(" "),
  ..."-qmp unix:qmp,server=on,wait=off -chardev socket,id=c,path=c,server=on -mon chardev=c,mode=control"
    .split(" "),
  "-blockdev",
  '{"driver":"raw","node-name":"n0","read-only":true,"file":{"driver":"file","filename":"disk"}}',
  "-device",
  '{"driver":"virtio-blk-pci","drive":"n0"}',
  ..."-device virtio-blk-pci,drive=d0,bootindex=1,share-rw=off".split(" "),
];

/** Headers of two qcow2 images, one on the other, without the images. @returns the path of the upper one */
function writeChain(folder: string): string {
  const base = join(folder, "base");
  Deno.writeFileSync(base, qcow2Header());
  const top = join(folder, "top");
  Deno.writeFileSync(top, qcow2Header("base"));
  return top;
}

/** QEMU's docs/interop/qcow2.txt: version 3, a backing file in the format qcow2. */
function qcow2Header(backing = ""): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  const words: [number, number][] = [[0, 0x514649fb], [4, 3], [20, 16], [100, 104]];
  for (const [at, word] of words) view.setUint32(at, word);
  if (backing === "") return bytes;
  const name = new TextEncoder().encode(backing);
  for (const [at, word] of [[104, 0xe2792aca], [108, 5], [12, 128], [16, name.length]] as const) {
    view.setUint32(at, word);
  }
  bytes.set(new TextEncoder().encode("qcow2"), 112);
  bytes.set(name, 128);
  return bytes;
}
