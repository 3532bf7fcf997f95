import { printable } from "../errors.ts";
import { type FoundDisk, shownName } from "../qemu/found_disks.ts";
import type { UnderstoodQemu } from "../qemu/understand.ts";

/** What was understood of a QEMU command line, for people. */
export function understoodText(understood: UnderstoodQemu): string {
  const { name, uuid, qmp, incoming, pidfile, daemonize, disks, ignored } = understood;
  const facts = [
    name === undefined ? undefined : `name ${name}`,
    uuid === undefined ? undefined : `uuid ${uuid}`,
    qmp === undefined ? undefined : `QMP socket ${qmp}`,
    incoming === undefined ? undefined : `incoming migration ${incoming}`,
    daemonize ? "goes into the background" : undefined,
    pidfile === undefined ? undefined : `pid file ${pidfile}`,
  ].filter((fact) => fact !== undefined);
  const lines = [
    `from QEMU's options: ${facts.length === 0 ? "no name, UUID or QMP socket" : facts.join(", ")}`,
    ...disks.map((disk) =>
      `  ${disk.origin}: ${shownName(disk.name)} (${disk.access}, ${disk.format ?? "format not stated"})`
    ),
    ...ignored.map((line) => `  not locked: ${line}`),
    ...hintsAbout(disks).map((line) => `  hint: ${line}`),
  ];
  return lines.map((line) => printable(line) + "\n").join("");
}

/** The same for programs. */
export function understoodResult(understood: UnderstoodQemu) {
  const { name, uuid, qmp, incoming, daemonize, pidfile, disks, ignored } = understood;
  return {
    name: name ?? null,
    uuid: uuid ?? null,
    qmp: qmp ?? null,
    incoming: incoming ?? null,
    daemonize,
    pidfile: pidfile ?? null,
    disks: disks.map(({ name, access, origin, format }) => ({
      name: shownName(name),
      access,
      origin,
      format: format ?? null,
    })),
    ignored,
    hints: hintsAbout(disks),
  };
}

/** An image of unstated format is never looked into: a guest can write a header that names somebody else's disk. */
function hintsAbout(disks: readonly FoundDisk[]): string[] {
  return disks.filter(({ format }) => format === undefined).map(({ name, origin }) =>
    `${origin}: the format of ${
      shownName(name)
    } is not stated, so its backing files are not looked for; state it (format=raw, format=qcow2), as QEMU advises`
  );
}
