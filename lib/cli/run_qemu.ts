import { fileError, LockvisorError } from "../errors.ts";
import { isPresent } from "../files/presence.ts";
import type { HostSession } from "../host_session.ts";
import { readMounts } from "../identity/mounts.ts";
import { resolveResource, type ResourceSpec } from "../identity/resource.ts";
import { type NamedFiles, readImageFiles, type StatedImage } from "../image/image_reader.ts";
import type { ImageReader } from "../qemu/image_chain.ts";
import { mergeDisks } from "../qemu/merge_disks.ts";
import type { QemuProgram } from "../qemu/program.ts";
import { understandQemu, type UnderstoodQemu } from "../qemu/understand.ts";
import type { CliContext } from "./context.ts";

/** What `run` needs for a command that is a QEMU: read only then. */

/** What QEMU reads by itself, unless -no-user-config is given (qemu(1)). */
const DEFAULT_CONFIG = "/etc/qemu/qemu.conf";
const LARGEST_CONFIG = 1 << 20;

/** The start of a QEMU whose command line was understood. */
export interface QemuStart {
  understood: UnderstoodQemu;
  /**
   * To be asked when the locks are there, and waiting for them may have taken long.
   * @throws {LockvisorError} `locked` when an image names other files than it did: those would not be locked
   */
  confirm(): Promise<void>;
}

/** Understands the command line of a QEMU. @throws {LockvisorError} as `understandQemu` */
export async function understand({ args, directory }: QemuProgram, context: CliContext): Promise<QemuStart> {
  const images = rememberImages((line) => context.note(`warning: ${line}`));
  const understood = await understandQemu(args, {
    directory,
    images: images.reader,
    config: {
      read: readConfigFile,
      readDefault: () => isPresent(DEFAULT_CONFIG) ? readConfigFile(DEFAULT_CONFIG) : undefined,
    },
  });
  return { understood, confirm: images.confirm };
}

/** Reads images, and can tell afterwards whether they still name the same files. */
export function rememberImages(warn: (line: string) => void): {
  reader: ImageReader;
  confirm: QemuStart["confirm"];
} {
  const images: { image: StatedImage; files: NamedFiles }[] = [];
  return {
    reader: {
      read: async (image) => {
        const files = await readImageFiles(image);
        images.push({ image, files });
        return files;
      },
      warn,
    },
    confirm: async () => {
      for (const { image, files } of images) {
        if (JSON.stringify(await readImageFiles(image)) !== JSON.stringify(files)) throw changed(image);
      }
    },
  };
}

function changed({ path }: StatedImage): LockvisorError {
  const text =
    `disk ${path} was changed while this start waited for its locks: it names another backing file or data file now; start again`;
  return new LockvisorError("locked", text);
}

/** The resources of a QEMU guest: those given by hand, and the disks that it opens besides. */
export function resourcesOfQemu(
  { config: { host, storage } }: HostSession,
  given: readonly ResourceSpec[],
  { disks }: Pick<UnderstoodQemu, "disks">,
): ResourceSpec[] {
  const all = [...given.filter(({ type }) => type === "disk"), ...disks];
  const inodes = inodesOf(all.map(({ name }) => name));
  if (inodes !== undefined) return mergeDisks(given, disks, ({ name }) => [inodes.get(name)!]);
  const scope = { hostId: host.id, storage, mounts: readMounts() };
  return mergeDisks(
    given,
    disks,
    (disk) =>
      resolveResource({ ...disk, type: "disk" }, scope).identities.filter(({ scope }) => scope === "whole")
        .map(({ key }) => key),
  );
}

/**
 * Regular files of one filesystem are told by their inodes, which is quicker than by all that a disk is called.
 * Undefined where one of the disks is anything else, or is not there.
 */
function inodesOf(names: readonly string[]): Map<string, string> | undefined {
  const inodes = new Map<string, string>();
  let device: number | undefined;
  for (const name of names) {
    if (!name.startsWith("/") || !isPresent(name)) return undefined;
    const { isFile, dev, ino } = statusOf(name) ?? {};
    if (!isFile || ino === null || (device ?? dev) !== dev) return undefined;
    device = dev;
    inodes.set(name, `${ino}`);
  }
  return inodes;
}

function statusOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch {
    return undefined; // whoever resolves it tells why
  }
}

function readConfigFile(path: string): string {
  try {
    const { isFile, size } = Deno.statSync(path);
    if (isFile && size <= LARGEST_CONFIG) return Deno.readTextFileSync(path);
  } catch (error) {
    throw fileError(`read ${path}, which QEMU's -readconfig names`, error);
  }
  throw new LockvisorError(
    "data",
    `${path}, which QEMU's -readconfig names, is no file of at most ${LARGEST_CONFIG} bytes; state every disk with --disk and add --no-auto`,
  );
}
