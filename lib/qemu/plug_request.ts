import { LockvisorError } from "../errors.ts";
import { sha256Hex } from "../identity/digest.ts";
import type { ResourceSpec } from "../identity/resource.ts";
import { blockDriver } from "./block_drivers.ts";
import { BlockGraph } from "./block_graph.ts";
import { BlockOptions } from "./block_options.ts";
import { type FoundDisk, foundDisks } from "./found_disks.ts";
import type { ImageReader } from "./image_chain.ts";
import { type FlatValue, readJsonOptions } from "./json_options.ts";
import { openNode } from "./open_node.ts";
import { parseParameters, switchOf } from "./option_string.ts";

/** A disk to plug in, as the command line describes it. */
export interface PlugWish {
  /** By its absolute path. */
  disk: ResourceSpec;
  /** What the path leads to. */
  kind: "file" | "block-device";
  /** As `-device` takes it, without a drive; JSON as well. */
  device: string;
  /** The image's format; a disk without one is raw. */
  format: string | undefined;
  id: string | undefined;
}

/** What QEMU is told, and the disks that it opens then. */
export interface PlugRequest {
  id: string;
  path: string;
  /** The node that the device has, and what `query-named-block-nodes` says of it. */
  node: { name: string; driver: string; readOnly: boolean };
  blockdev: Record<string, unknown>;
  device: Record<string, unknown>;
  disks: FoundDisk[];
}

const DEFAULT_DEVICE = "virtio-blk-pci";

/** QEMU's ids (`id_wellformed`); its names of nodes have 31 characters at most, with what is put behind here. */
const ID = /^[A-Za-z][A-Za-z0-9._-]{0,25}$/;

/** The node that a device with this id gets. */
export function nodeNameOf(id: string): string {
  return `${id}-img`;
}

/** An id for a disk. @throws {LockvisorError} `usage` */
function checkedId(id: string): string {
  if (ID.test(id)) return id;
  const rule = "a letter, then at most 25 of the characters A-Z a-z 0-9 . _ -";
  throw new LockvisorError("usage", `the id "${id}" of the disk is not one that QEMU takes: ${rule}`);
}

/**
 * What QEMU is to be told for a disk, and all that it opens for it: with a stated format the backing files too.
 * @throws {LockvisorError} `usage`; `data` for an image that cannot be read, or is shared and has a format
 */
export async function planRequest(wish: PlugWish, images: ImageReader): Promise<PlugRequest> {
  const { disk: { name: path, access }, format = "raw" } = wish;
  const stated = readDevice(wish.device);
  const id = chooseId(wish, stated);
  const driver = blockDriver(format);
  if (format !== "raw" && driver?.kind !== "format") {
    throw new LockvisorError("usage", `--format "${format}" is no format of images that QEMU has`);
  }
  const readOnly = access === "readonly";
  const name = nodeNameOf(id);
  const file = {
    driver: wish.kind === "file" ? "file" : "host_device",
    filename: path,
    "node-name": `${id}-file`,
    "read-only": readOnly,
  };
  const blockdev = { driver: format, "node-name": name, "read-only": readOnly, file };
  const device = { ...stated, id, drive: name };
  if (access === "shared" && !("share-rw" in device)) Object.assign(device, { "share-rw": true });

  const graph = new BlockGraph();
  const origin = `disk ${path}`;
  const options = new BlockOptions(flat(blockdev));
  const node = await openNode({ graph, images, directory: undefined }, {
    origin,
    options,
    unstated: "image",
  });
  graph.attachments.push({ node, sharesWrites: sharesWrites(device) });
  const disks = foundDisks(graph);
  refuseOtherUse(disks, wish);
  return { id, path, node: { name, driver: format, readOnly }, blockdev, device, disks };
}

/** Options of a device as QEMU is told: those of JSON keep their types. @throws {LockvisorError} `usage` */
function readDevice(text: string): Record<string, unknown> {
  const options = text.startsWith("{") ? jsonDevice(text) : Object.fromEntries(
    parseParameters(text || DEFAULT_DEVICE, "driver").entries(),
  );
  if (typeof options.driver !== "string" || options.driver === "") {
    throw new LockvisorError("usage", `--device ${text}: it names no driver, such as ${DEFAULT_DEVICE}`);
  }
  if ("drive" in options) {
    throw new LockvisorError("usage", `--device ${text}: leave drive= out; the disk is what is plugged in`);
  }
  return options;
}

function jsonDevice(text: string): Record<string, unknown> {
  const fault = readJsonOptions(text);
  try {
    if (typeof fault !== "string") return JSON.parse(text);
  } catch { /* QEMU's own kind of JSON, which is of no use here */ }
  throw new LockvisorError("usage", `--device ${text}: it is no JSON object`);
}

/** Without a given one it is made from the path, so that the same disk has the same id again. */
function chooseId({ id, disk }: PlugWish, { id: inDevice }: Record<string, unknown>): string {
  if (id !== undefined && inDevice !== undefined && id !== inDevice) {
    throw new LockvisorError("usage", `the device has the id "${inDevice}", and --id is "${id}"; give one`);
  }
  const given = id ?? inDevice;
  return given === undefined ? `disk-${sha256Hex(disk.name).slice(0, 8)}` : checkedId(String(given));
}

function sharesWrites(device: Record<string, unknown>): boolean {
  const stated = device["share-rw"];
  return stated === true || (typeof stated === "string" && switchOf(stated) === true);
}

/** The lock must be for what QEMU does: an image with a format has one writer, and no device lets others in unseen. */
function refuseOtherUse(disks: readonly FoundDisk[], { disk, format }: PlugWish): void {
  const own = disks.find(({ name }) => name === disk.name);
  if (own === undefined || own.access === disk.access) return;
  const why = own.access === "shared"
    ? "its device has share-rw=on: state access=shared as well"
    : format === undefined || format === "raw"
    ? "its device has share-rw=off: leave that out"
    : `an image of format ${format} has one writer: leave access=shared out`;
  throw new LockvisorError("data", `disk ${disk.name} cannot be plugged in ${disk.access}: ${why}`);
}

function flat(options: Record<string, unknown>, prefix = ""): [string, FlatValue][] {
  return Object.entries(options).flatMap(([name, value]): [string, FlatValue][] => {
    if (typeof value === "object" && value !== null) {
      return flat(value as Record<string, unknown>, `${prefix}${name}.`);
    }
    return [[`${prefix}${name}`, typeof value === "boolean" ? (value ? "on" : "off") : String(value)]];
  });
}
