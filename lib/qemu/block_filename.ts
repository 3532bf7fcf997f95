import { BlockOptions } from "./block_options.ts";
import { readJsonOptions } from "./json_options.ts";

/** The driver behind each scheme of a file name, as QEMU's `bdrv_find_protocol` finds it. */
const DRIVER_OF_SCHEME: ReadonlyMap<string, string> = new Map([
  ...[
    "file host_device host_cdrom nbd rbd iscsi iser nfs ssh gluster sheepdog http https ftp ftps null-co null-aio nvme",
    "blkdebug blkverify",
  ].join(" ").split(" ").map((name) => [name, name] as const),
  ["fat", "vvfat"],
  ["nbd+tcp", "nbd"],
  ["nbd+unix", "nbd"],
  ["gluster+tcp", "gluster"],
  ["gluster+unix", "gluster"],
  ["gluster+rdma", "gluster"],
  ["sheepdog+tcp", "sheepdog"],
  ["sheepdog+unix", "sheepdog"],
]);

/**
 * The scheme in front of a file name: what stands before the first colon, unless a slash comes before that
 * (`path_has_protocol`).
 */
export function schemeOf(filename: string): string | undefined {
  const colon = filename.indexOf(":");
  if (colon < 0) return undefined;
  const slash = filename.indexOf("/");
  return slash >= 0 && slash < colon ? undefined : filename.slice(0, colon);
}

/** The driver that QEMU opens a file name with; undefined for a scheme that is not known. */
export function driverOfFilename(filename: string): string | undefined {
  const scheme = schemeOf(filename);
  return scheme === undefined ? "file" : DRIVER_OF_SCHEME.get(scheme);
}

/** What a driver makes of a file name, as its `bdrv_parse_filename`. */
export interface ParsedFilename {
  /** The name without the scheme that stands for the driver, for drivers of paths. */
  path?: string;
  /** Names of images that the driver opens, by child. */
  children?: Record<string, string>;
}

/** Takes a file name apart for a driver that has its own idea of it. */
export function parseFilename(driver: string, filename: string): ParsedFilename {
  switch (driver) {
    case "file":
    case "host_device":
    case "host_cdrom":
      return { path: filename.startsWith(`${driver}:`) ? filename.slice(driver.length + 1) : filename };
    case "blkdebug": {
      // blkdebug:[CONFIG]:IMAGE
      const rest = filename.slice("blkdebug:".length);
      return { children: { image: rest.slice(rest.indexOf(":") + 1) } };
    }
    case "blkverify": {
      // blkverify:RAW:IMAGE
      const rest = filename.slice("blkverify:".length);
      const colon = rest.indexOf(":");
      return { children: { raw: rest.slice(0, colon), test: rest.slice(colon + 1) } };
    }
    default:
      return {};
  }
}

/** The options in a file name `json:{…}`, undefined for any other; or what is wrong. */
export function jsonFilename(filename: string): BlockOptions | string | undefined {
  if (!filename.startsWith("json:")) return undefined;
  const options = readJsonOptions(filename.slice("json:".length));
  return typeof options === "string" ? options : new BlockOptions(options);
}
