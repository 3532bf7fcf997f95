import { LockvisorError } from "../errors.ts";
import {
  baseNameOf,
  type BlockName,
  type DeviceNumber,
  isMultipathUuid,
  isNetworkDevice,
  splitPartitionUuid,
  uniqueNames,
} from "./block_name.ts";
import {
  linkedDirectories,
  partitionDirectories,
  readAttribute,
  readDeviceAttributes,
  readPartition,
  readRawAttribute,
} from "./sysfs.ts";

/** A block device with everything that shares storage with it, as sysfs shows it on this host now. */
export interface BlockDevice {
  /** The device itself; more than one name for a multipath device, which is the same disk as its paths. */
  names: BlockName[];
  /** What is made out of it: partitions, and what is built on it (LVM, RAID, dm-crypt …), however far up. */
  inside: BlockName[];
  /** What it is made out of: the disk of a partition, the disks of a logical volume, however far down. */
  beneath: BlockName[];
  /** For a loop device or a partition of one: the path of the backing file, as the kernel gives it. */
  backingFile: string | undefined;
  /** Backing files of loop devices beneath. */
  filesBeneath: string[];
  /** Whether the way to it leads over a network (iSCSI, Fibre Channel, NVMe over fabrics, rbd …) or is multipath. */
  network: boolean;
}

/**
 * Takes apart a device number as stat(2) gives it (makedev(3)): the minor in bits 0–7 and 20–43, the major in bits
 * 8–19 and 44–63. By plain arithmetic, since JavaScript's bit operators end at 32 bits.
 */
export function decodeDevice(device: number): DeviceNumber {
  const bits = (from: number, count: number) => Math.floor(device / 2 ** from) % 2 ** count;
  return { major: bits(8, 12) + bits(44, 20) * 2 ** 12, minor: bits(0, 8) + bits(20, 24) * 2 ** 8 };
}

/**
 * Reads a block device's names and neighbours from sysfs.
 *
 * @param sysfs Where sysfs is mounted; anything but `/sys` is for tests.
 * @throws LockvisorError `data` if the kernel has no such device
 */
export function readBlockDevice({ major, minor }: DeviceNumber, sysfs = "/sys"): BlockDevice {
  const link = `${sysfs}/dev/block/${major}:${minor}`;
  let directory;
  try {
    directory = Deno.realPathSync(link);
  } catch (error) {
    throw new LockvisorError(
      "data",
      `the kernel has no block device ${major}:${minor} (there is no ${link}); ` +
        "it was removed, or sysfs is not mounted",
      { cause: error },
    );
  }
  const own = sameDisk(directory);
  const above = reach(own, (each) => [...partitionDirectories(each), ...linkedDirectories(each, "holders")]);
  const below = reach(own, directoriesBelow);
  return {
    names: namesOf(directory),
    inside: uniqueNames(above.filter((each) => backingFileOf(each) === undefined).flatMap(namesOf)),
    beneath: uniqueNames(below.filter((each) => backingFileOf(each) === undefined).flatMap(namesOf)),
    backingFile: backingFileOf(directory),
    filesBeneath: below.map(backingFileOf).filter((file) => file !== undefined),
    network: [...own, ...below].some((each) => isNetworkDevice(each) || isMultipath(each)),
  };
}

/** Everything that can be reached from the start by a step, without the start itself. */
function reach(start: readonly string[], step: (directory: string) => string[]): string[] {
  const seen = new Set(start);
  // The set grows while it is walked; a Set's iteration visits what is added meanwhile.
  for (const directory of seen) step(directory).forEach((next) => seen.add(next));
  return [...seen].slice(start.length);
}

function directoriesBelow(directory: string): string[] {
  const partition = readPartition(directory);
  return partition === undefined ? linkedDirectories(directory, "slaves") : [partition.disk];
}

/** The directories that stand for the same disk: a multipath device and its paths; else the one directory. */
function sameDisk(directory: string): string[] {
  const multipath = isMultipath(directory)
    ? directory
    : linkedDirectories(directory, "holders").find((holder) => isMultipath(holder));
  return multipath === undefined
    ? [directory]
    : [...new Set([directory, multipath, ...linkedDirectories(multipath, "slaves")])];
}

function isMultipath(directory: string): boolean {
  return isMultipathUuid(readAttribute(`${directory}/dm/uuid`));
}

function namesOf(directory: string): BlockName[] {
  const partition = readPartition(directory);
  if (partition !== undefined) return partitionsNamed(namesOf(partition.disk), partition.number);
  return uniqueNames(
    sameDisk(directory).flatMap((each) => {
      const attributes = readDeviceAttributes(each);
      const made = splitPartitionUuid(attributes.dmUuid ?? "");
      if (made === undefined) return [{ base: baseNameOf(attributes), suffix: "" }];
      const disks = linkedDirectories(each, "slaves").flatMap(namesOf);
      return partitionsNamed([{ base: `dm:${made.diskUuid}`, suffix: "" }, ...disks], made.partition);
    }),
  );
}

function partitionsNamed(disk: readonly BlockName[], partition: number): BlockName[] {
  return uniqueNames(disk.map(({ base, suffix }) => ({ base, suffix: `${suffix}:part${partition}` })));
}

/**
 * The file behind a loop device, or behind the disk of a loop device's partition. A partition of a loop device is
 * locked as the whole file is: that excludes more than it must, and never less.
 */
function backingFileOf(directory: string): string | undefined {
  const disk = readPartition(directory)?.disk ?? directory;
  return readRawAttribute(`${disk}/loop/backing_file`);
}
