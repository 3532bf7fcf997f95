import type { Access } from "../access.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import { isNetworkDisk } from "../identity/network_disk.ts";
import { percentDecode, percentEncode } from "../identity/uri.ts";
import { blockDriver } from "./block_drivers.ts";
import { jsonFilename } from "./block_filename.ts";
import { networkFilename, networkName } from "./network_name.ts";
import type { OpenNode, PermissionEdge, PermissionGraph } from "./permission_graph.ts";

/**
 * How it is known what QEMU does with a disk. `told`: by QEMU, or by its locks on the image. `guessed`: from how it was
 * opened. `foreseen`: nobody uses it yet, and a device that gets it may write without anybody being told.
 */
export type Certainty = "told" | "guessed" | "foreseen";

/** A file, device or network disk at the bottom of what QEMU has open. */
export interface OpenLeaf {
  /** Its node in QEMU. */
  node: string;
  /** An absolute path as QEMU knows it, or the name of a network disk as `--disk` takes it. */
  is: { kind: "path"; path: string } | { kind: "network"; name: string };
  access: Access;
  certainty: Certainty;
  place: "backing" | "other" | "unknown";
}

/** The leaves of what QEMU has open, and what could be a disk and cannot be named. */
export interface OpenLeaves {
  leaves: OpenLeaf[];
  unnamed: string[];
}

/**
 * The disks among QEMU's nodes.
 * @param graph who does what to each node; undefined for a QEMU that does not tell: then only how a node was opened counts
 * @param directory the one that QEMU runs in: relative names are meant from there
 */
export function openLeaves(
  nodes: readonly OpenNode[],
  graph: PermissionGraph | undefined,
  directory: string,
): OpenLeaves {
  const leaves: OpenLeaf[] = [];
  const unnamed: string[] = [];
  for (const node of nodes) {
    const driver = blockDriver(node.driver);
    if (driver?.kind === "elsewhere") unnamed.push(`${nodeText(node)}: another process opens its disk`);
    if (driver === undefined && !INTERNAL_FILTERS.has(node.driver) && !hasChildren(graph, node)) {
      unnamed.push(`${nodeText(node)}: this driver is not known`);
    }
    if (driver?.kind !== "path" && driver?.kind !== "network") continue;
    const is = driver.kind === "path" ? pathOf(node, directory) : networkOf(node, directory);
    if (is === undefined) {
      unnamed.push(`${nodeText(node)}: what QEMU calls it does not tell which disk it is`);
      continue;
    }
    const isReadOnly = driver.kind === "network" && driver.writes === "never";
    leaves.push({ node: node.name, is, ...useOf(node, graph, isReadOnly ? "never" : "possible") });
  }
  return { leaves, unnamed };
}

/** What block jobs put above a node while they run: what is below as `backing` is what they work on. */
const INTERNAL_FILTERS = new Set(["mirror_top", "commit_top", "backup-top"]);

function nodeText({ name, driver }: OpenNode): string {
  return `node "${name}" (${driver})`;
}

function hasChildren(graph: PermissionGraph | undefined, { name }: OpenNode): boolean {
  return graph?.edges.some(({ parent }) => parent === name) ?? false;
}

function useOf(
  node: OpenNode,
  graph: PermissionGraph | undefined,
  writing: "possible" | "never",
): Pick<OpenLeaf, "access" | "certainty" | "place"> {
  if (graph === undefined) {
    const access = node.readOnly || writing === "never" ? "readonly" : "exclusive";
    return { access, certainty: "guessed", place: "unknown" };
  }
  const edges = graph.edges.filter(({ child }) => child === node.name);
  const place = isOnlyBacking(graph, node.name) ? "backing" : "other";
  const isWritten = edges.some(({ uses }) => uses.includes("write") || uses.includes("resize"));
  if (!isWritten && !node.readOnly && writing === "possible" && mayBeAttached(graph, node.name)) {
    return { access: "exclusive", certainty: "foreseen", place };
  }
  if (!isWritten || writing === "never") return { access: "readonly", certainty: "told", place };
  const sharesWrites = edges.every(({ shares }) => shares.includes("write"));
  return { access: sharesWrites ? "shared" : "exclusive", certainty: "told", place };
}

/** Whether a way up from a node, other than as a backing file, ends at one that nobody has and that can be written. */
function mayBeAttached(graph: PermissionGraph, node: string): boolean {
  if (graph.readOnly.has(node)) return false;
  const above = graph.edges.filter(({ child }) => child === node);
  if (above.length === 0) return true;
  return above.some(({ parent, parentIs, use }) =>
    parentIs === "node" && use !== "backing" && mayBeAttached(graph, parent)
  );
}

/** Whether all ways up from a node end below others as their backing file: nothing reads it for itself. */
function isOnlyBacking(graph: PermissionGraph, node: string): boolean {
  const above = graph.edges.filter(({ child }) => child === node);
  return above.length > 0 && above.every((edge) => endsAsBacking(graph, edge));
}

function endsAsBacking(graph: PermissionGraph, { parent, parentIs, use }: PermissionEdge): boolean {
  if (parentIs !== "node") return false;
  const isBacking = use === "backing" && !INTERNAL_FILTERS.has(graph.drivers.get(parent) ?? "");
  return isBacking || isOnlyBacking(graph, parent);
}

/** These drivers' names are paths as they are; one in the form json:{…} has options that a plain name cannot tell. */
function pathOf({ file }: OpenNode, directory: string): OpenLeaf["is"] | undefined {
  const options = jsonFilename(file);
  const path = options === undefined || typeof options === "string" ? file : options.text("filename") ?? file;
  return path === "" ? undefined : { kind: "path", path: absolutePath(path, directory) };
}

function networkOf({ driver, file }: OpenNode, directory: string): OpenLeaf["is"] | undefined {
  const options = jsonFilename(file);
  if (typeof options === "string") return undefined;
  const name = options === undefined
    ? networkFilename(withAbsoluteSocket(file, directory), directory)
    : networkName(driver, options, directory);
  return name === undefined || !isNetworkDisk(name) ? undefined : { kind: "network", name };
}

/** In QEMU's own name of a node a relative unix socket stays relative. */
function withAbsoluteSocket(name: string, directory: string): string {
  return name.replace(/^([a-z]+\+unix:\/\/.*[?&]socket=)([^&]+)/s, (_, before: string, socket: string) => {
    return before + percentEncode(absolutePath(percentDecode(socket), directory), "/");
  });
}
