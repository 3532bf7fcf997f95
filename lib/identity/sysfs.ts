import { errnoOf, fileError } from "../errors.ts";
import type { DeviceAttributes } from "./block_name.ts";

/** What a driver answers for a value that the device does not have, besides the file not being there. */
const NO_VALUE: ReadonlySet<string> = new Set([
  "ENOENT",
  "ENOTDIR",
  "EINVAL",
  "ENXIO",
  "errno 6",
  "ENODEV",
  "errno 19",
  "EOPNOTSUPP",
]);

/**
 * A file of sysfs without the spaces and line breaks around it; undefined if it is missing or empty, or the
 * device has no such value.
 *
 * @throws LockvisorError when the kernel will not or cannot answer: a name that comes and goes would be two locks
 */
export function readAttribute(path: string): string | undefined {
  const value = readRawAttribute(path)?.trim();
  return value === "" ? undefined : value;
}

/** As {@linkcode readAttribute}, but with only the last line break removed: for paths, which may end in a space. */
export function readRawAttribute(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path).replace(/\n$/, "");
  } catch (error) {
    if (NO_VALUE.has(errnoOf(error))) return undefined;
    throw fileError(`read ${path}`, error);
  }
}

/** The attributes that a device can be named by. */
export function readDeviceAttributes(directory: string): DeviceAttributes {
  const kernelName = directory.slice(directory.lastIndexOf("/") + 1);
  const [major, minor] = (readAttribute(`${directory}/dev`) ?? "0:0").split(":");
  return {
    kernelName,
    number: { major: Number(major), minor: Number(minor) },
    dmUuid: readAttribute(`${directory}/dm/uuid`),
    wwid: readAttribute(`${directory}/wwid`),
    deviceWwid: readAttribute(`${directory}/device/wwid`),
    serial: readAttribute(`${directory}/serial`),
    deviceSerial: readAttribute(`${directory}/device/serial`),
    rbd: /^rbd\d+$/.test(kernelName) ? readRbd(`${directory}/device`) : undefined,
  };
}

function readRbd(directory: string): DeviceAttributes["rbd"] {
  const pool = readAttribute(`${directory}/pool`);
  const image = readAttribute(`${directory}/name`);
  if (pool === undefined || image === undefined || image === "(unknown)") return undefined;
  const snapshot = readAttribute(`${directory}/current_snap`);
  const namespace = readAttribute(`${directory}/pool_ns`);
  return { pool, namespace, image, snapshot: snapshot === "-" ? undefined : snapshot };
}

/** The directory of the disk that a device's directory is a partition of, and the partition's number. */
export function readPartition(directory: string): { number: number; disk: string } | undefined {
  const number = readAttribute(`${directory}/partition`);
  return number === undefined
    ? undefined
    : { number: Number(number), disk: directory.slice(0, directory.lastIndexOf("/")) };
}

/** The directories of a disk's partitions that the kernel knows now. */
export function partitionDirectories(directory: string): string[] {
  return namesIn(directory).filter((name) => name.startsWith(directory.slice(directory.lastIndexOf("/") + 1)))
    .map((name) => `${directory}/${name}`)
    .filter((candidate) => readPartition(candidate) !== undefined);
}

/** The directories of the devices that are linked from `slaves` (made out of) or `holders` (made into). */
export function linkedDirectories(directory: string, kind: "slaves" | "holders"): string[] {
  return namesIn(`${directory}/${kind}`).map((name) => Deno.realPathSync(`${directory}/${kind}/${name}`));
}

function namesIn(directory: string): string[] {
  try {
    return [...Deno.readDirSync(directory)].map((entry) => entry.name).sort();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw fileError(`list ${directory}`, error);
  }
}
