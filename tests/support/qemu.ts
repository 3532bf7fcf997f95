/** A real QEMU guest without an operating system: it starts at once and opens its disk for writing. */
export function qemuCommand(
  disk: string,
  options: { access?: "writable" | "readonly"; extra?: string[] } = {},
): string[] {
  const readonly = options.access === "readonly" ? ",read-only=on" : "";
  const path = disk.replaceAll(",", ",,");
  return [
    "qemu-system-x86_64",
    ..."-accel tcg -M pc -nodefaults -no-user-config -display none -m 16".split(" "),
    "-blockdev",
    `driver=qcow2,node-name=d0,file.driver=file,file.filename=${path}${readonly}`,
    "-device",
    "virtio-blk-pci,drive=d0",
    ...options.extra ?? [],
  ];
}
