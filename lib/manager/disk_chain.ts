import { isText } from "../files/json_shape.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import type { QmpClient } from "../qmp/client.ts";

/** What QEMU tells of its disks, and of the jobs that work on them. */
export interface DisksView {
  disks: readonly DiskView[];
  jobs: readonly JobView[];
  nodes: ReadonlyMap<string, BlockNode>;
}

/** A disk of the guest, whatever image it has at the moment. */
export interface DiskView {
  /** How it is found again: its device's place in QEMU's object model, or the id of a drive without a device. */
  place: string;
  /** For people: the device's id, else the drive's, else the node that it has. */
  name: string;
  /** All by which it may be called, but for its images. */
  ids: readonly string[];
  /** The uppermost node: a filter, or that of the image on top. */
  root: string;
  /** Drivers of the filters between the device and its image. */
  filters: readonly string[];
  /** The image that the guest writes, and its backing files, downwards. */
  chain: readonly ChainImage[];
}

/** An image in a disk's chain. */
export interface ChainImage {
  /** The node of its format; that of its file where QEMU has no format above it. */
  node: string;
  /** What QEMU reads it as. */
  format: string;
  /** Its file or device on this host, by an absolute path; undefined for one that is elsewhere. */
  file: string | undefined;
  /** All of its nodes, its format's first. */
  nodes: readonly string[];
  /** The guest's view of it, in bytes. */
  size: number;
  /** Whether QEMU has it open for writing, whether it writes or not. */
  use: "writable" | "readonly";
  cache: { direct: boolean; noFlush: boolean };
}

/** A node of QEMU's block layer. */
export interface BlockNode {
  name: string;
  driver: string;
  /** Its own file or device on this host, by an absolute path; empty for any other node. */
  file: string;
  size: number;
  use: ChainImage["use"];
  cache: ChainImage["cache"];
  /** The nodes that it has, each with what it is to it: `file`, `backing`… */
  children: readonly { edge: string; node: string }[];
  /** Whether a device, a job or another node has it. */
  isUsed: boolean;
}

/** A job of QEMU; qemu-qmp-ref, JobInfo. */
export interface JobView {
  id: string;
  type: string;
  status: string;
  /** Bytes that are done, and bytes in all: the latter grows while the guest writes. */
  current: number;
  total: number;
  /** Why it came to nothing, once it is concluded. */
  error: string | undefined;
}

/** Filters let everything through; those of QEMU's own jobs come and go with them. */
const FILTERS = [
  "throttle",
  "copy-on-read",
  "compress",
  "preallocate",
  "blkdebug",
  "blklogwrites",
  "replication",
  "mirror_top",
  "commit_top",
  "copy-before-write",
  "snapshot-access",
];
const JOB_FILTERS = ["mirror_top", "commit_top", "copy-before-write"];

const LOCAL_DRIVERS = ["file", "host_device", "host_cdrom"];

/**
 * Asks QEMU.
 * @param directory where QEMU runs: names of files are made absolute by it
 * @throws {LockvisorError} `unavailable`
 */
export async function lookAtChains(monitor: QmpClient, directory: string): Promise<DisksView> {
  return readDisks({
    directory,
    nodes: await monitor.execute("query-named-block-nodes", { flat: true }),
    graph: await monitor.execute("x-debug-query-block-graph"),
    blocks: await monitor.execute("query-block"),
    jobs: await monitor.execute("query-jobs"),
  });
}

/** Asks QEMU for its jobs alone. @throws {LockvisorError} `unavailable` */
export async function lookAtJobs(monitor: QmpClient): Promise<JobView[]> {
  return objects(await monitor.execute("query-jobs")).map(readJob);
}

/** Understands QEMU's answers. */
export function readDisks(
  { directory, nodes, graph, blocks, jobs }: {
    directory: string;
    nodes: unknown;
    graph: unknown;
    blocks: unknown;
    jobs: unknown;
  },
): DisksView {
  const known = readNodes(objects(nodes), isObject(graph) ? graph : {}, directory);
  return {
    nodes: known,
    jobs: objects(jobs).map(readJob),
    disks: objects(blocks).flatMap((block) => readDisk(block, known)),
  };
}

function readNodes(
  nodes: Record<string, unknown>[],
  graph: Record<string, unknown>,
  directory: string,
): Map<string, BlockNode> {
  const names = new Map(
    objects(graph.nodes).filter(({ type }) => type === "block-driver").map(({ id, name }) => [id, name]),
  );
  const edges = objects(graph.edges).map(({ parent, child, name }) => ({
    parent: names.get(parent),
    child: String(names.get(child)),
    edge: String(name),
  }));
  const used = new Set(edges.map(({ child }) => child));
  return new Map(nodes.map((node): [string, BlockNode] => {
    const name = String(node["node-name"]);
    const image = isObject(node.image) ? node.image : {};
    const cache = isObject(node.cache) ? node.cache : {};
    return [name, {
      name,
      driver: String(node.drv),
      file: fileOf(node, directory),
      size: numberOf(image["virtual-size"]),
      use: node.ro === true ? "readonly" : "writable",
      cache: { direct: cache.direct === true, noFlush: cache["no-flush"] === true },
      children: edges.filter(({ parent }) => parent === name).map(({ edge, child }) => ({
        edge,
        node: child,
      })),
      isUsed: used.has(name),
    }];
  }));
}

/** The file of a node on this host; empty for anything else, and for a descriptor that QEMU was handed. */
function fileOf({ drv, file }: Record<string, unknown>, directory: string): string {
  if (!LOCAL_DRIVERS.includes(String(drv)) || !isText(file) || file.startsWith("/dev/fdset/")) return "";
  return absolutePath(file, directory);
}

function readDisk(block: Record<string, unknown>, nodes: ReadonlyMap<string, BlockNode>): DiskView[] {
  const { device, qdev, inserted } = block;
  const root = isObject(inserted) ? inserted["node-name"] : undefined;
  if (!isText(root)) return [];
  const drive = isText(device) && device !== "" ? device : undefined;
  const owner = isText(qdev) && qdev !== "" ? qdev : undefined;
  const place = owner ?? drive;
  if (place === undefined) return [];
  const id = deviceId(place);
  const filters: string[] = [];
  let top = nodes.get(root);
  while (top !== undefined && FILTERS.includes(top.driver)) {
    if (!JOB_FILTERS.includes(top.driver)) filters.push(top.driver);
    top = nodes.get(top.children[0]?.node ?? "");
  }
  return [{
    place,
    name: id ?? drive ?? root,
    ids: [id, drive, owner].filter((each) => each !== undefined),
    root,
    filters,
    chain: chainFrom(top, nodes),
  }];
}

/** The id of a device by its place: `/machine/peripheral/ID`, with what is inside of the device behind. */
function deviceId(place: string): string | undefined {
  return /^\/machine\/peripheral\/([^/]+)/.exec(place)?.[1] ?? (place.includes("/") ? undefined : place);
}

/** QEMU itself allows no more. */
const LONGEST_CHAIN = 200;

function chainFrom(top: BlockNode | undefined, nodes: ReadonlyMap<string, BlockNode>): ChainImage[] {
  const chain: ChainImage[] = [];
  let node = top;
  while (node !== undefined && chain.length < LONGEST_CHAIN) {
    if (!FILTERS.includes(node.driver)) chain.push(imageOf(node, nodes));
    const isFilter = FILTERS.includes(node.driver);
    const below = node.children.find(({ edge }) => edge === "backing" || (isFilter && edge === "file"));
    node = nodes.get(below?.node ?? "");
  }
  return chain;
}

function imageOf(node: BlockNode, nodes: ReadonlyMap<string, BlockNode>): ChainImage {
  const below = [node];
  for (let next: BlockNode | undefined = node; next !== undefined;) {
    const child: string = next.children.find(({ edge }) => edge === "file")?.node ?? "";
    next = nodes.get(child);
    if (next !== undefined) below.push(next);
  }
  const last = below.at(-1)!;
  return {
    node: node.name,
    format: LOCAL_DRIVERS.includes(node.driver) ? "raw" : node.driver,
    file: last.file === "" ? undefined : last.file,
    nodes: below.map(({ name }) => name),
    size: node.size,
    use: node.use,
    cache: node.cache,
  };
}

function readJob(job: Record<string, unknown>): JobView {
  return {
    id: String(job.id),
    type: String(job.type),
    status: String(job.status),
    current: numberOf(job["current-progress"]),
    total: numberOf(job["total-progress"]),
    error: isText(job.error) ? job.error : undefined,
  };
}

function numberOf(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

function objects(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
