import type { BlockOptions } from "./block_options.ts";
import { misunderstood } from "./misunderstood.ts";
import { switchOf } from "./option_string.ts";

/** Whether options tell which disk a node is, and not only how it is used. */
export function namesDisk(options: BlockOptions): boolean {
  return options.names().some((name) =>
    /(^|\.)(file|filename|path|dir|host|pool|portal|volume|url|vdi|device|image|raw)$/.test(name)
  );
}

/** Whether a child is stated, by its name or by options of its own. */
export function hasChild(options: BlockOptions, name: string): boolean {
  return options.names().some((each) => each === name || each.startsWith(`${name}.`));
}

/** A switch among the options of a node, off unless it is on; it is gone from there then. */
export function takeSwitch(options: BlockOptions, name: string, origin: string): boolean {
  const text = options.take(name);
  const value = text === undefined || text === null ? false : switchOf(text);
  if (value === undefined) throw misunderstood(origin, `${name}=${text} is neither on nor off`, "usage");
  return value;
}

const UNITS = "BKMGTPE";

/** A number of bytes as QEMU's `qemu_strtosz` reads it: `512`, `0x200`, `1.5M`. */
export function sizeOf(text: string, origin: string): number {
  const [, digits, unit = "B"] = /^(0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?)([bkmgtpeBKMGTPE]?)$/.exec(text) ??
    [];
  if (digits === undefined) throw misunderstood(origin, `offset=${text} is no size`, "usage");
  return Math.floor(Number(digits) * 1024 ** UNITS.indexOf(unit === "" ? "B" : unit.toUpperCase()));
}

const NAMES_OF_DISKS = ["file", "filename", "driver", "image", "dir", "url"];

/** An option that no driver has asked for, and that could name a disk. */
export function refuseLeftOver(options: BlockOptions, origin: string): void {
  const suspicious = options.names().find((name) =>
    NAMES_OF_DISKS.includes(name.slice(name.lastIndexOf(".") + 1))
  );
  if (suspicious !== undefined) throw misunderstood(origin, `"${suspicious}" is not understood`);
}
