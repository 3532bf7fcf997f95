/**
 * A child that a driver opens by its options.
 *
 * - `image`: what the driver shows is made of it; reading and writing go there.
 * - `backing`: only read, for what the image itself does not have.
 * - `data`: written beside the image.
 */
export type ChildUse = "image" | "backing" | "data";

/** A child's option; `format` tells whether QEMU looks for a format there when none is stated. */
export interface ChildOption {
  name: string;
  use: ChildUse;
  format: "probed" | "never";
  presence: "required" | "optional";
}

/** What a driver of QEMU's block layer is, as far as locks are concerned. */
export type BlockDriver =
  /** A file or device of this host. */
  | { kind: "path" }
  /** A disk on a network. */
  | { kind: "network"; writes: "possible" | "never" }
  /** Nothing that anybody else could have: no data, or a device that the kernel gives to one process only. */
  | { kind: "nothing"; why: string }
  /** A directory. */
  | { kind: "directory" }
  /** A disk that another process opens. */
  | { kind: "elsewhere"; option: string }
  /** An image format with metadata of its own; `files`: how its other files are found. */
  | { kind: "format"; files: "none" | "qcow2" | "qemu-img"; children: readonly ChildOption[] }
  /** A layer without metadata. `isProtocol`: QEMU does not look for a format below it. */
  | { kind: "filter"; isProtocol: boolean; children: readonly ChildOption[]; list?: string };

const FILE: ChildOption = { name: "file", use: "image", format: "never", presence: "required" };

const plain: BlockDriver = { kind: "format", files: "none", children: [FILE] };
const filter = (...more: ChildOption[]): BlockDriver => ({
  kind: "filter",
  isProtocol: false,
  children: [FILE, ...more],
});
const nothing = (why: string): BlockDriver => ({ kind: "nothing", why });
const network: BlockDriver = { kind: "network", writes: "possible" };
const download: BlockDriver = { kind: "network", writes: "never" };

/** The drivers of QEMU up to 10.2 (qapi/block-core.json, BlockdevDriver), and some that older ones had. */
const DRIVERS: ReadonlyMap<string, BlockDriver> = new Map<string, BlockDriver>([
  ["file", { kind: "path" }],
  ["host_device", { kind: "path" }],
  ["host_cdrom", { kind: "path" }],
  ["nbd", network],
  ["rbd", network],
  ["iscsi", network],
  ["iser", network],
  ["nfs", network],
  ["ssh", network],
  ["gluster", network],
  ["sheepdog", network],
  ["http", download],
  ["https", download],
  ["ftp", download],
  ["ftps", download],
  ["null-co", nothing("it has no data")],
  ["null-aio", nothing("it has no data")],
  ["nvme", nothing("the kernel (VFIO) gives the device to one process only")],
  ["virtio-blk-vfio-pci", nothing("the kernel (VFIO) gives the device to one process only")],
  ["vvfat", { kind: "directory" }],
  ["virtio-blk-vhost-user", { kind: "elsewhere", option: "path" }],
  ["virtio-blk-vhost-vdpa", { kind: "elsewhere", option: "path" }],
  ["qcow2", {
    kind: "format",
    files: "qcow2",
    children: [FILE, { name: "data-file", use: "data", format: "never", presence: "optional" }],
  }],
  ["qcow", { kind: "format", files: "qemu-img", children: [FILE] }],
  ["qed", { kind: "format", files: "qemu-img", children: [FILE] }],
  ["vmdk", { kind: "format", files: "qemu-img", children: [FILE] }],
  // Formats that QEMU knows without other files: it refuses their variants that have a parent.
  ["vdi", plain],
  ["vhdx", plain],
  ["vpc", plain],
  ["parallels", plain],
  ["dmg", plain],
  ["cloop", plain],
  ["bochs", plain],
  ["luks", {
    kind: "format",
    files: "none",
    children: [FILE, { name: "header", use: "data", format: "never", presence: "optional" }],
  }],
  ["raw", filter()],
  ["throttle", filter()],
  ["copy-on-read", filter()],
  ["compress", filter()],
  ["preallocate", filter()],
  ["snapshot-access", filter()],
  ["replication", filter()],
  ["copy-before-write", filter({ name: "target", use: "data", format: "probed", presence: "required" })],
  ["blklogwrites", filter({ name: "log", use: "data", format: "never", presence: "required" })],
  ["blkreplay", {
    kind: "filter",
    isProtocol: false,
    children: [{ name: "image", use: "image", format: "probed", presence: "required" }],
  }],
  ["blkdebug", {
    kind: "filter",
    isProtocol: true,
    children: [{ name: "image", use: "image", format: "never", presence: "required" }],
  }],
  ["blkverify", {
    kind: "filter",
    isProtocol: true,
    children: [
      { name: "raw", use: "image", format: "never", presence: "required" },
      { name: "test", use: "data", format: "probed", presence: "required" },
    ],
  }],
  ["quorum", { kind: "filter", isProtocol: false, children: [], list: "children" }],
]);

/** A driver by its name, undefined for one that is not known. */
export function blockDriver(name: string): BlockDriver | undefined {
  return DRIVERS.get(name);
}

/** Whether QEMU counts a driver as a protocol: it opens a file name itself, and no format is looked for. */
export function isProtocol(driver: BlockDriver): boolean {
  if (driver.kind === "filter") return driver.isProtocol;
  return driver.kind !== "format";
}

/** Whether several QEMUs can write through a driver at once: what it keeps in the image is the guest's alone. */
export function isShareable(driver: BlockDriver | undefined): boolean {
  return driver === undefined || driver.kind !== "format";
}
