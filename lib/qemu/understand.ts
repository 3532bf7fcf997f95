import { absolutePath } from "../identity/absolute_path.ts";
import { BlockGraph, type BlockNode } from "./block_graph.ts";
import { BlockOptions } from "./block_options.ts";
import { type FoundDisk, foundDisks, otherLeaves } from "./found_disks.ts";
import type { ImageReader } from "./image_chain.ts";
import { memoryDisks } from "./memory_disks.ts";
import { misunderstood } from "./misunderstood.ts";
import { monitorSocket } from "./monitor.ts";
import { openNode } from "./open_node.ts";
import { type ConfigReader, type QemuSettings, readSettings, switchParameter } from "./settings.ts";
import type { DriveSetting, Thing } from "./settings.ts";

/** What a QEMU command line tells about its guest. */
export interface UnderstoodQemu {
  name: string | undefined;
  uuid: string | undefined;
  /** The absolute path of the first QMP socket that QEMU listens on. */
  qmp: string | undefined;
  /** Where an incoming migration comes from. */
  incoming: string | undefined;
  /** Whether it goes into the background, with another pid, and the file that this is written to. */
  daemonize: boolean;
  pidfile: string | undefined;
  disks: FoundDisk[];
  /** What is no disk, or cannot be anybody else's, each with the reason. */
  ignored: string[];
}

/** What understanding depends on besides the words. */
export interface Surroundings {
  /** Where relative paths start; default: the current directory. */
  directory?: string | undefined;
  images: ImageReader;
  config: ConfigReader;
}

const NIL_UUID = "00000000-0000-0000-0000-000000000000";

/**
 * Finds every disk that QEMU opens for its arguments, with how it is used, and who the guest is. QEMU's own source is
 * the reference (softmmu/vl.c, blockdev.c, block.c of 7.2).
 * @throws {LockvisorError} for what is not understood and could be a disk, `data` for an image that cannot be read
 */
export async function understandQemu(
  args: readonly string[],
  { directory, images, config }: Surroundings,
): Promise<UnderstoodQemu> {
  const settings = readSettings(args, config);
  const graph = new BlockGraph();
  const context = { graph, images, directory };
  // QEMU makes all -blockdev first, wherever they stand: a -drive may name their nodes.
  for (const { origin, options } of settings.blockdevs) {
    await openNode(context, { origin, options: new BlockOptions(options), unstated: "image" });
  }
  for (const drive of settings.drives) {
    const request = driveRequest(drive, settings.snapshot);
    if (request === undefined) continue;
    const node = await openNode(context, request);
    const id = drive.parameters.first("id");
    if (id !== undefined) graph.name(node, id);
  }
  for (const device of settings.devices) attach(graph, device);
  const memory = memoryDisks(settings.devices, settings.objects, directory);
  const elsewhere = [...otherLeaves(graph, "elsewhere"), ...settings.devices.flatMap(diskElsewhere)];
  for (const line of elsewhere) {
    images.warn(`QEMU's ${line}: it is not locked here; lock it with that process, or by a --lease`);
  }
  return {
    ...identityOf(settings),
    qmp: monitorSocket(settings, directory),
    disks: [...foundDisks(graph), ...memory.disks],
    ignored: [...otherLeaves(graph, "nothing"), ...memory.ignored, ...settings.notDisks, ...elsewhere],
  };
}

function identityOf({ name, uuid, incoming, daemonize, pidfile }: QemuSettings) {
  return {
    name: name === "" ? undefined : name,
    uuid: uuid === NIL_UUID ? undefined : uuid, // what QEMU has when none is stated
    incoming,
    daemonize,
    pidfile: pidfile === undefined ? undefined : absolutePath(pidfile),
  };
}

/** Parameters of a `-drive` that say where and how it is attached, not what it is (blockdev.c). */
const NOT_FOR_THE_NODE =
  "id bus unit index media if file readonly read-only rerror werror copy-on-read snapshot format".split(" ");

/** A drive without any of these is empty. */
const MAKE_A_NODE = ["driver", "backing", "file", "filename"];

/**
 * A `-drive` as a node to open, as QEMU's `drive_new` and `blockdev_init` do.
 * @returns undefined for one that is empty, as a CD drive may be
 */
function driveRequest(drive: DriveSetting, allSnapshot: boolean) {
  const { parameters } = drive;
  const options = new BlockOptions(
    [...parameters.entries()].filter(([name]) => !NOT_FOR_THE_NODE.includes(name)),
  );
  const format = parameters.get("format");
  if (format !== undefined) {
    if (options.has("driver")) throw misunderstood(drive.origin, "it has format= and driver=", "usage");
    options.set("driver", format);
  }
  const filename = parameters.get("file") || undefined;
  const isEmpty = filename === undefined &&
    !options.names().some((name) => MAKE_A_NODE.includes(name.split(".", 1)[0]!));
  if (isEmpty) return undefined;
  // QEMU renames readonly, which turns several of them round: of those the first counts (qemu_opt_rename).
  const isReadOnly = switchParameter(drive, "read-only") || switchParameter(drive, "readonly", "first") ||
    parameters.get("media") === "cdrom";
  // With snapshot the image is only the backing file of a temporary one.
  const isSnapshot = switchParameter(drive, "snapshot") ?? allSnapshot;
  options.set("read-only", isReadOnly || isSnapshot ? "on" : "off");
  options.default("auto-read-only", isSnapshot ? "off" : "on");
  return { origin: drive.origin, filename, options, unstated: "image" as const };
}

/** What a device has attached; a drive that is not known is QEMU's to refuse. */
function attach(graph: BlockGraph, device: Thing): void {
  const node: BlockNode | undefined = graph.find(device.parameters.get("drive") ?? "");
  if (node === undefined) return;
  graph.attachments.push({ node, sharesWrites: switchParameter(device, "share-rw") ?? false });
}

/** A device whose disk is opened by another process, or by the kernel. */
function diskElsewhere({ origin, parameters }: Thing): string[] {
  const driver = parameters.get("driver") ?? "";
  if (!driver.startsWith("vhost-")) return [];
  if (/^vhost-user-(blk|scsi)/.test(driver)) return [`${origin}: its disk is opened by another process`];
  if (/^vhost-scsi/.test(driver)) return [`${origin}: its disk is opened by the kernel`];
  if (/^vhost-vdpa-device/.test(driver)) return [`${origin}: if it is a disk, that is opened elsewhere`];
  return [];
}
