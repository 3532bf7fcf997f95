import type { Access } from "../access.ts";
import { isNetworkDisk, readNetworkDisk } from "../identity/network_disk.ts";
import { isShareable } from "./block_drivers.ts";
import type { BlockGraph, BlockNode } from "./block_graph.ts";

/** A disk that QEMU opens. */
export interface FoundDisk {
  /** As `--disk` takes it, commas not doubled: an absolute path or the name of a network disk. */
  name: string;
  access: Access;
  /** What on the command line, or in which image, names it; for people. */
  origin: string;
  /** The format that is stated for the image in it; undefined if QEMU looks for one. */
  format: string | undefined;
}

/** A disk's name for messages: one on a network without user and password. */
export function shownName(name: string): string {
  return isNetworkDisk(name) ? readNetworkDisk(name).uri : name;
}

/** Every disk of a block graph, in the order in which QEMU opens them, and how it is used. */
export function foundDisks(graph: BlockGraph): FoundDisk[] {
  return graph.nodes.flatMap((node): FoundDisk[] => {
    const { leaf, origin } = node;
    if (leaf?.kind !== "path" && leaf?.kind !== "network") return [];
    const name = leaf.kind === "path" ? leaf.path : leaf.name;
    return [{ name, access: accessOf(graph, node), origin, format: formatOf(graph, node) }];
  });
}

/** The disks that nothing on this side can lock, or that are none, each with the reason. */
export function otherLeaves(graph: BlockGraph, kind: "nothing" | "elsewhere"): string[] {
  return graph.nodes.flatMap(({ leaf, origin }) => leaf?.kind === kind ? [`${origin}: ${leaf.why}`] : []);
}

function accessOf(graph: BlockGraph, node: BlockNode): Access {
  if (node.leaf?.kind === "network" && node.leaf.writes === "never") return "readonly";
  if (!isWritten(graph, node)) return "readonly";
  return isShared(graph, node) ? "shared" : "exclusive";
}

/**
 * Whether QEMU opens a node for writing: unless that is ruled out, and with auto-read-only unless nobody above writes.
 * Where that is not certain it counts as written.
 */
function isWritten(graph: BlockGraph, node: BlockNode): boolean {
  if (node.readOnly) return false;
  const parents = graph.parentsOf(node);
  if (!node.autoReadOnly || parents.length === 0) return true;
  return parents.some(({ use, node: parent }) => use !== "backing" && writesBelow(graph, parent));
}

/**
 * Whether a node writes to what is below it: a format its metadata, unless it is read-only, copy-on-read what was read,
 * read-only or not, and nobody is asked about filters that are rare.
 */
function writesBelow(graph: BlockGraph, node: BlockNode): boolean {
  const { driver, readOnly } = node;
  if (driver?.name === "raw" || driver?.name === "throttle") return isWritten(graph, node);
  return driver?.is.kind === "filter" || !readOnly;
}

/**
 * Whether all devices above allow other writers, and no format between keeps metadata of its own: QEMU refuses a
 * second writer of those, whatever the device says.
 */
function isShared(graph: BlockGraph, node: BlockNode): boolean {
  if (!isShareable(node.driver?.is)) return false;
  const devices = graph.attachments.filter((attachment) => attachment.node === node);
  const parents = graph.parentsOf(node).filter(({ use }) => use !== "backing");
  if (devices.length === 0 && parents.length === 0) return false;
  return devices.every(({ sharesWrites }) => sharesWrites) &&
    parents.every(({ node: parent }) => isShared(graph, parent));
}

function formatOf(graph: BlockGraph, node: BlockNode): string | undefined {
  for (const { node: parent } of graph.parentsOf(node)) {
    if (parent.driver === undefined) return undefined;
    if (parent.driver.is.kind === "format" || parent.driver.name === "raw") return parent.driver.name;
    return formatOf(graph, parent);
  }
  return graph.parentsOf(node).length === 0 ? node.driver?.name : undefined;
}
