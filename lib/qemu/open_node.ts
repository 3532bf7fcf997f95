import { absolutePath } from "../identity/absolute_path.ts";
import { type BlockDriver, blockDriver, type ChildUse, isProtocol } from "./block_drivers.ts";
import { driverOfFilename, jsonFilename, parseFilename, schemeOf } from "./block_filename.ts";
import type { BlockGraph, BlockNode, Leaf } from "./block_graph.ts";
import type { BlockOptions } from "./block_options.ts";
import { chainedFiles, type ChainPlace, type ImageReader } from "./image_chain.ts";
import { misunderstood } from "./misunderstood.ts";
import { networkFilename, networkName } from "./network_name.ts";
import { hasChild, namesDisk, refuseLeftOver, sizeOf, takeSwitch } from "./node_options.ts";

/** What nodes are opened in. */
export interface OpenContext {
  graph: BlockGraph;
  images: ImageReader;
  /** Where relative paths start; default: the current directory. */
  directory: string | undefined;
}

/** A node to open, as QEMU's `bdrv_open_inherit` gets it. */
export interface NodeRequest {
  origin: string;
  /** A name that may say by itself what it is: `nbd://…`, `json:{…}`, a path. */
  filename?: string | undefined;
  options: BlockOptions;
  /** What opens here when no driver is stated: the file itself, or an image whose format QEMU looks for. */
  unstated: "file" | "image";
  chain?: ChainPlace;
}

/**
 * Opens a node and all below it on paper, as QEMU 7.2's block.c does (`bdrv_fill_options`, `bdrv_open_inherit`).
 * @throws {LockvisorError} for what is not understood and could be a disk
 */
export async function openNode(context: OpenContext, request: NodeRequest): Promise<BlockNode> {
  const { origin } = request;
  const options = request.options.copy();
  const filename = absorbJson(request, options);
  const driverName = driverOf({ ...request, filename }, options);
  const driver = driverName === undefined ? undefined : blockDriver(driverName);
  if (driverName !== undefined && driver === undefined) {
    throw misunderstood(origin, `the block driver "${driverName}" is not known`);
  }
  const readOnly = takeSwitch(options, "read-only", origin);
  const node: BlockNode = {
    origin,
    driver: driver === undefined ? undefined : { name: driverName!, is: driver },
    readOnly,
    autoReadOnly: takeSwitch(options, "auto-read-only", origin),
    children: [],
    offset: 0,
    leaf: undefined,
  };
  const nodeName = options.take("node-name");
  const below: Below = { context, node, options, filename, chain: request.chain };
  if (driver === undefined) await openImage(below);
  else if (driver.kind === "format" || driver.kind === "filter") await openLayer(below, driver);
  else node.leaf = leafOf(below, driver);
  refuseLeftOver(options, origin);
  context.graph.add(node);
  if (nodeName !== undefined && nodeName !== null) context.graph.name(node, nodeName);
  return node;
}

/** A node that is being opened. */
interface Below {
  context: OpenContext;
  node: BlockNode;
  options: BlockOptions;
  filename: string | undefined;
  chain: ChainPlace | undefined;
}

/** Options inside of the file name count unless given outside as well. @returns the file name if it is another one */
function absorbJson({ origin, filename }: NodeRequest, options: BlockOptions): string | undefined {
  const inside = filename === undefined ? undefined : jsonFilename(filename);
  if (inside === undefined) return filename;
  if (typeof inside === "string") throw misunderstood(`${origin}, json:`, inside);
  for (const name of inside.names()) options.default(name, inside.take(name) ?? null);
  return undefined;
}

/** The driver that is stated, or that follows from the file name; undefined where the format is left to QEMU. */
function driverOf(
  { origin, filename, unstated }: NodeRequest,
  options: BlockOptions,
): string | undefined {
  const stated = options.take("driver") ?? undefined;
  if (stated !== undefined || unstated === "image") return stated;
  const name = filename ?? options.text("filename");
  if (name === undefined) throw misunderstood(origin, "it states neither a driver nor a file");
  const driver = filename === undefined ? "file" : driverOfFilename(filename);
  if (driver === undefined) {
    throw misunderstood(
      origin,
      `the scheme "${schemeOf(name)}" is not known; a path that looks like one begins with ./`,
    );
  }
  return driver;
}

/** An image of unstated format: the file below it is known, and nothing that its header may name. */
async function openImage(below: Below): Promise<void> {
  await openChild(
    below,
    { name: "file", use: "image", format: "never", presence: "required" },
    below.filename,
  );
  await openBacking(below, undefined);
}

async function openLayer(below: Below, driver: BlockDriver & { kind: "format" | "filter" }): Promise<void> {
  const { node, options, filename } = below;
  const inside = filename === undefined || !isProtocol(driver)
    ? { file: filename }
    : parseFilename(node.driver!.name, filename).children ?? {};
  for (const child of driver.children) {
    await openChild(below, child, (inside as Record<string, string | undefined>)[child.name]);
  }
  if (
    filename !== undefined &&
    Object.keys(inside).every((name) => !driver.children.some((each) => each.name === name))
  ) {
    throw misunderstood(node.origin, `${node.driver!.name} has no file`);
  }
  if (driver.kind === "filter" && driver.list !== undefined) {
    for (let index = 0; hasChild(options, `${driver.list}.${index}`); index++) {
      const name = `${driver.list}.${index}`;
      await openChild(below, { name, use: "image", format: "probed", presence: "required" });
    }
  }
  const offset = node.driver!.name === "raw" ? options.text("offset") : undefined;
  if (offset !== undefined) node.offset = sizeOf(offset, node.origin);
  const files = driver.kind === "format" && driver.files !== "none"
    ? await chainedFiles(below.context.images, node, driver.files, {
      chain: below.chain,
      explicit: {
        backing: options.has("backing") || options.has("backing.file.filename"),
        data: node.children.some(({ use }) => use === "data"),
      },
    })
    : undefined;
  for (const { filename, origin, options: more } of files?.data ?? []) {
    inheritReadOnly(node, more);
    add(node, "data", await openNode(below.context, { origin, filename, options: more, unstated: "file" }));
  }
  await openBacking(below, files?.backing);
}

/** The backing file: the node, the options or the file name that are stated; else what the image's header names. */
async function openBacking(
  below: Below,
  header: { filename: string; format: string | undefined; origin: string; chain: ChainPlace } | undefined,
): Promise<void> {
  const { context, node, options } = below;
  const reference = options.take("backing");
  const inside = options.takeChild("backing");
  if (reference === null || reference === "") return;
  if (reference !== undefined) {
    add(node, "backing", referenced(context, node, reference));
    return;
  }
  const isStated = inside.has("file.filename") || (header === undefined && namesDisk(inside));
  if (!isStated && header === undefined) return; // whatever else is said about it: there is none, or nobody knows it
  inside.default("read-only", "on");
  inside.default("auto-read-only", "off");
  if (!isStated && header!.format !== undefined) inside.default("driver", header!.format);
  const backing = await openNode(context, {
    origin: isStated ? `${node.origin}, backing` : header!.origin,
    filename: isStated ? undefined : header!.filename,
    options: inside,
    unstated: "image",
    ...(isStated ? {} : { chain: header!.chain }),
  });
  add(node, "backing", backing);
}

async function openChild(
  { context, node, options }: Below,
  { name, use, format, presence }: {
    name: string;
    use: ChildUse;
    format: "probed" | "never";
    presence: "required" | "optional";
  },
  filename?: string,
): Promise<void> {
  const reference = options.take(name) ?? undefined;
  const inside = options.takeChild(name);
  if (reference !== undefined) {
    if (filename !== undefined || inside.size > 0) {
      throw misunderstood(node.origin, `it has "${name}" both as a node and with options`);
    }
    add(node, use, referenced(context, node, reference));
    return;
  }
  if (filename === undefined && inside.size === 0) {
    if (presence === "optional") return;
    throw misunderstood(node.origin, `it has no "${name}"`);
  }
  inheritReadOnly(node, inside);
  add(
    node,
    use,
    await openNode(context, {
      origin: node.origin,
      filename,
      options: inside,
      unstated: format === "never" ? "file" : "image",
    }),
  );
}

function inheritReadOnly(node: BlockNode, options: BlockOptions): void {
  options.default("read-only", node.readOnly ? "on" : "off");
  options.default("auto-read-only", node.autoReadOnly ? "on" : "off");
}

function add(node: BlockNode, use: ChildUse, child: BlockNode): void {
  node.children.push({ use, node: child });
}

function referenced({ graph }: OpenContext, node: BlockNode, name: string): BlockNode {
  const found = graph.find(name);
  if (found === undefined) {
    throw misunderstood(node.origin, `there is no node "${name}" before it`, "usage");
  }
  return found;
}

function leafOf({ context, node, options, filename }: Below, driver: BlockDriver): Leaf {
  const name = node.driver!.name;
  switch (driver.kind) {
    case "path": {
      const stated = options.take("filename") ?? undefined;
      const written = stated ?? (filename === undefined ? undefined : parseFilename(name, filename).path);
      if (written === undefined || written === "") throw misunderstood(node.origin, "it names no file");
      if (written.startsWith("/dev/fdset/")) {
        throw misunderstood(`${node.origin}: ${written}`, "which file is behind a descriptor cannot be told");
      }
      return { kind: "path", path: absolutePath(written, context.directory), written };
    }
    case "network": {
      const text = filename ?? options.text("filename") ?? options.text("uri");
      const disk = text === undefined
        ? networkName(name, options, context.directory)
        : networkFilename(text, context.directory);
      for (const each of options.names()) options.take(each);
      if (disk === undefined) throw misunderstood(node.origin, `which ${name} disk it means cannot be told`);
      return { kind: "network", name: disk, writes: driver.writes };
    }
    case "directory": {
      const directory = options.take("dir") ?? filename ?? "";
      return { kind: "nothing", why: `${directory} is a directory, which is no disk` };
    }
    case "elsewhere":
      return {
        kind: "elsewhere",
        why: `the disk behind ${options.take(driver.option)} is opened by another process`,
      };
    default:
      for (const each of ["filename", "device", "path"]) options.take(each);
      return { kind: "nothing", why: `${name}: ${driver.kind === "nothing" ? driver.why : ""}` };
  }
}
