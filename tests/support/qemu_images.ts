/** Runs a program to its end in a directory. @throws when it fails */
export async function must(directory: string, program: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, {
    args,
    cwd: directory,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (!success) throw new Error(`${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

const PLAIN = [
  "a.raw",
  "b.raw",
  "c.raw",
  "base.raw",
  "cd.iso",
  "with,comma.raw",
  "two,,commas.raw",
  "with space.raw",
  "a=b.raw",
  "with:colon.raw",
  "file:odd.raw",
  "split2.data",
];

/** Arguments of `qemu-img create`, in this order: a later image may lie on an earlier one. */
const CREATED = `
  qcow2 alone.qcow2
  qcow2 base.qcow2
  qcow2 base2.qcow2
  qcow2 folder/base.qcow2
  qcow2 -b base.qcow2 -F qcow2 over.qcow2
  qcow2 -b base.qcow2 -F qcow2 over2.qcow2
  qcow2 -b over.qcow2 -F qcow2 top.qcow2
  qcow2 -b base.raw -F raw over-raw.qcow2
  qcow2 -b ../base.qcow2 -F qcow2 folder/inner.qcow2
  qcow2 -o compat=0.10 -b base.qcow2 -F qcow2 version2.qcow2
  qcow2 -o data_file=split.data folder/split.qcow2
  vmdk -o subformat=monolithicFlat flat.vmdk
  vmdk sparse.vmdk
  vmdk -b sparse.vmdk -F vmdk over.vmdk
  qed base.qed
  qed -b base.qed -F qed over.qed
  vdi a.vdi
  vhdx a.vhdx
`;

/** Makes one image of every kind that the command lines in tests/qemu_command_lines name. */
export async function makeImages(directory: string): Promise<void> {
  Deno.mkdirSync(`${directory}/folder`);
  Deno.writeTextFileSync(`${directory}/folder/readme`, "no disk\n");
  for (const name of PLAIN) sized(`${directory}/${name}`, 16 << 20);
  for (const name of ["floppy.img", "floppy2.img"]) sized(`${directory}/${name}`, 1440 << 10);
  for (const name of ["code.fd", "vars.fd"]) sized(`${directory}/${name}`, 256 << 10);
  for (const line of CREATED.trim().split("\n")) {
    const [format, ...rest] = line.trim().split(" ");
    const size = rest.includes("-b") ? [] : ["16M"];
    await must(directory, "qemu-img", "create", "-q", "-f", format!, ...rest, ...size);
  }
  await makeLuks(directory, "a.luks");
  Deno.symlinkSync("a.raw", `${directory}/link.raw`);
  // Seen from the link, the backing file is another one than seen from the image.
  Deno.symlinkSync("../over.qcow2", `${directory}/folder/link.qcow2`);
  await must(directory, "qemu-img", "create", "-q", "-f", "qcow2", "json-backing.qcow2", "16M");
  const json = 'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}';
  await must(
    directory,
    "qemu-img",
    "rebase",
    "-u",
    "-f",
    "qcow2",
    "-F",
    "qcow2",
    "-b",
    json,
    "json-backing.qcow2",
  );
  await unstatedBacking(directory, "unstated-backing.qcow2", "over.qcow2");
  const inner = Deno.readFileSync(`${directory}/over.qcow2`);
  const shifted = new Uint8Array(65536 + inner.length);
  shifted.set(inner, 65536);
  Deno.writeFileSync(`${directory}/shifted.img`, shifted);
  Deno.writeTextFileSync(
    `${directory}/guest.conf`,
    [
      "# a guest",
      '[drive "d0"]',
      '  if = "virtio"',
      '  file = "a.raw"',
      '  format = "raw"',
      "",
      '[drive "cd0"]',
      '  media = "cdrom"',
      '  file = "cd.iso"',
      '  format = "raw"',
      "",
    ].join("\n"),
  );
}

/** An image whose header names a backing file and no format for it, as old versions of qemu-img made them. */
export async function unstatedBacking(directory: string, name: string, backing: string): Promise<void> {
  await must(
    directory,
    "qemu-img",
    "create",
    "-q",
    "-f",
    "qcow2",
    "-u",
    "-b",
    backing,
    "-F",
    "raw",
    name,
    "16M",
  );
  const path = `${directory}/${name}`;
  const bytes = Deno.readFileSync(path);
  const view = new DataView(bytes.buffer);
  for (
    let at = view.getUint32(100);
    view.getUint32(at) !== 0;
    at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8
  ) {
    if (view.getUint32(at) === 0xe2792aca) view.setUint32(at, 0x11111111); // unknown to everybody
  }
  Deno.writeFileSync(path, bytes);
}

/** qemu-img measures its own speed for the key, and gives up when the kernel counts too coarsely: then once more. */
async function makeLuks(directory: string, name: string): Promise<void> {
  const options = ["--object", "secret,id=s0,data=sesame", "-o", "key-secret=s0,iter-time=500"];
  for (let attempt = 1;; attempt++) {
    try {
      return await must(directory, "qemu-img", "create", "-q", "-f", "luks", ...options, name, "16M");
    } catch (error) {
      if (attempt === 20 || !/accurate CPU usage/.test(String(error))) throw error;
    }
  }
}

function sized(path: string, bytes: number): void {
  Deno.writeTextFileSync(path, "");
  Deno.truncateSync(path, bytes);
}
