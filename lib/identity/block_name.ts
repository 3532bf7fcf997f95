import { type RbdImage, rbdName } from "./rbd_name.ts";

/** A device number as a program sees it: `8:0` is major 8, minor 0. */
export interface DeviceNumber {
  major: number;
  minor: number;
}

/** One name of a block device, before the host's id is put in. */
export interface BlockName {
  /** A name that is the same on every host, or the device number where there is none. */
  base: string | DeviceNumber;
  /** `:part<N>` for a partition, else empty. */
  suffix: string;
}

/**
 * What the kernel tells about a device in sysfs, trimmed; undefined where there is no such file or it is empty.
 *
 * Sources: Documentation/ABI/stable/sysfs-block (`serial`), testing/sysfs-block-dm (`dm/uuid`), `device/wwid` of
 * SCSI and `wwid` of NVMe, Documentation/ABI/testing/sysfs-bus-rbd.
 */
export interface DeviceAttributes {
  /** The kernel's name of the device: `sda`, `dm-3`, `nvme0n1`. */
  kernelName: string;
  number: DeviceNumber;
  dmUuid?: string | undefined;
  wwid?: string | undefined;
  deviceWwid?: string | undefined;
  serial?: string | undefined;
  deviceSerial?: string | undefined;
  rbd?: RbdImage | undefined;
}

/**
 * The best name of a device that is no partition. An NVMe's `device/serial` is the controller's, which several
 * disks (namespaces) share, so it does not count. An image that the kernel has mapped (`rbd map`) is the same disk
 * as QEMU's `rbd:POOL/IMAGE`.
 */
export function baseNameOf(attributes: DeviceAttributes): BlockName["base"] {
  const { kernelName, dmUuid, rbd } = attributes;
  if (dmUuid !== undefined) return `dm:${dmUuid}`;
  if (rbd !== undefined) return `uri:${rbdName(rbd)}`;
  const wwid = attributes.wwid ?? attributes.deviceWwid;
  if (wwid !== undefined) return `wwid:${wwid}`;
  const serial = attributes.serial ?? (kernelName.startsWith("nvme") ? undefined : attributes.deviceSerial);
  return serial === undefined ? attributes.number : `serial:${serial}`;
}

/** A partition that kpartx(8) made of a device-mapper disk: its uuid is `part<N>-<the disk's uuid>`. */
export function splitPartitionUuid(dmUuid: string): { partition: number; diskUuid: string } | undefined {
  const parts = /^part(\d+)-(.+)$/s.exec(dmUuid);
  return parts === null ? undefined : { partition: Number(parts[1]), diskUuid: parts[2]! };
}

/** Whether a device-mapper uuid is that of a multipath device, which is the same disk as each of its paths. */
export function isMultipathUuid(dmUuid: string | undefined): boolean {
  return dmUuid?.startsWith("mpath-") ?? false;
}

/**
 * Whether a device's directory in sysfs shows that the disk is somewhere else: an iSCSI session, a Fibre Channel
 * remote port, a SAS end device behind an expander is not told apart, NVMe over fabrics, and the kernel's own
 * network block drivers.
 */
export function isNetworkDevice(sysfsDirectory: string): boolean {
  return /\/session\d+\/|\/rport-|\/nvme-fabrics\/|\/(nbd|rbd|drbd)\d+(\/|$)/.test(sysfsDirectory);
}

/** The identity text of a block device's name. */
export function blockIdentity({ base, suffix }: BlockName, hostId: string): string {
  return (typeof base === "string" ? base : `block:${hostId}:${base.major}:${base.minor}`) + suffix;
}

/** Each name once, in the order of their first appearance. */
export function uniqueNames(names: readonly BlockName[]): BlockName[] {
  return [...new Map(names.map((name) => [blockIdentity(name, ""), name])).values()];
}
