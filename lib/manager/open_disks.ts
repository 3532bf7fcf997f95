import type { Access } from "../access.ts";
import type { ImageFile } from "../process/image_files.ts";
import type { Certainty, OpenLeaf } from "../qemu/open_leaves.ts";

/**
 * Where a disk stands in what QEMU has open: only below others, as a backing file; anywhere else; or nobody has told,
 * since the descriptors alone do not.
 */
export type DiskPlace = "backing" | "other" | "unknown";

/** A disk that a guest's QEMU has open. */
export interface OpenDisk {
  /** As `--disk` takes it, commas not doubled: an absolute path, or the name of a network disk. */
  name: string;
  /** What QEMU does with it: `exclusive` writes, and lets nobody else write; `shared` writes beside others. */
  access: Access;
  /** What is not `told` is no reason to change a lock that is there. */
  certainty: Certainty;
  place: DiskPlace;
}

/** Who told what is open: QEMU by its monitor, or the kernel by the descriptors of its process. */
export type ViewSource = "qmp" | "proc";

/** All that a guest's QEMU has open. */
export interface OpenDisks {
  source: ViewSource;
  disks: readonly OpenDisk[];
  /** What could be a disk, and QEMU does not tell which one, each with the reason. */
  unnamed: readonly string[];
  /** Images whose names lead elsewhere from here. */
  strays: readonly StrayDisk[];
  /** The files and devices that its process has open, disks or not; undefined where we may not look. */
  files: readonly ImageFile[] | undefined;
  /** One line each, for the administrator. */
  warnings: readonly string[];
}

/** A disk that is open, and that no name is known of. */
export interface StrayDisk {
  disk: OpenDisk;
  file: ImageFile;
}

/** What a path leads to now: the same text as in an {@linkcode ImageFile}, undefined for nothing. */
export type FileIdAt = (path: string) => string | undefined;

/**
 * The disks that QEMU told of, as the files that its process really has open: a name may lead to another file by now.
 * What QEMU has locked as an image and no name of QEMU's leads to is named as the kernel names it.
 * @param files undefined where we may not look: names count as they are then
 */
export function disksOfLeaves(
  leaves: readonly OpenLeaf[],
  files: readonly ImageFile[] | undefined,
  fileIdAt: FileIdAt,
): Omit<OpenDisks, "source" | "unnamed"> {
  const found = new Map<string, OpenDisk>();
  const named = new Set<string>();
  const astray: string[] = [];
  for (const { is, access, certainty, place } of leaves) {
    const name = is.kind === "path" ? is.path : is.name;
    if (is.kind === "network" || files === undefined) {
      add(found, name, { name, access, certainty, place });
      continue;
    }
    const id = fileIdAt(name);
    const same = files.filter((file) => file.id === id);
    if (id === undefined || same.length === 0) {
      astray.push(name);
      continue;
    }
    named.add(id);
    add(found, id, { name, ...refined({ access, certainty }, same), place });
  }
  const rest = disksOfFiles(
    (files ?? []).filter(({ id, imageLock }) => !named.has(id) && imageLock !== undefined),
    fileIdAt,
  );
  const gone = new Set(files?.filter(({ isUnlinked }) => isUnlinked).map(({ path }) => path));
  return {
    disks: [...found.values(), ...rest.disks],
    strays: rest.strays,
    files,
    warnings: [...new Set(astray)].filter((name) => !gone.has(name)).map((name) =>
      `QEMU has disk ${name} open under a name that leads elsewhere or nowhere by now: it was renamed or replaced`
    ),
  };
}

/**
 * The disks among the files that a process has open, where its monitor does not tell: what QEMU has locked as an image,
 * and block devices.
 */
export function disksOfFiles(
  files: readonly ImageFile[],
  fileIdAt: FileIdAt,
): Omit<OpenDisks, "source" | "unnamed"> {
  const found = new Map<string, OpenDisk>();
  const strays: StrayDisk[] = [];
  for (const file of files) {
    const { id, path, imageLock, isWritable, isBlockDevice, isNameless } = file;
    if (imageLock === undefined && !isBlockDevice) continue;
    if (isNameless) continue; // as the temporary image of snapshot=on: nobody else can open it
    const use = imageLock === undefined
      ? { access: isWritable ? "exclusive" as const : "readonly" as const, certainty: "guessed" as const }
      : { access: accessByLock(imageLock), certainty: "told" as const };
    const disk: OpenDisk = { name: path, ...use, place: "unknown" };
    if (fileIdAt(path) === id) add(found, id, disk);
    else strays.push({ disk, file });
  }
  return { disks: [...found.values()], strays, files, warnings: [] };
}

/** QEMU's locks on an image tell more than how it was opened. */
function refined(
  use: Pick<OpenDisk, "access" | "certainty">,
  files: readonly ImageFile[],
): Pick<OpenDisk, "access" | "certainty"> {
  const locks = files.flatMap(({ imageLock }) => imageLock ?? []);
  if (use.certainty !== "guessed" || locks.length === 0) return use;
  return { access: locks.map(accessByLock).reduce(strongest), certainty: "told" };
}

function accessByLock({ writes, sharesWrites }: NonNullable<ImageFile["imageLock"]>): Access {
  if (!writes) return "readonly";
  return sharesWrites ? "shared" : "exclusive";
}

/** One disk that QEMU has open twice is used in all of the ways. */
function add(found: Map<string, OpenDisk>, id: string, disk: OpenDisk): void {
  const earlier = found.get(id);
  if (earlier === undefined) return void found.set(id, disk);
  found.set(id, {
    name: earlier.name,
    access: strongest(earlier.access, disk.access),
    certainty: strongest(earlier.access, disk.access) === earlier.access ? earlier.certainty : disk.certainty,
    place: earlier.place === disk.place ? disk.place : "other",
  });
}

const STRENGTH: Readonly<Record<Access, number>> = { readonly: 0, shared: 1, exclusive: 2 };

/** The access that lets a guest do most. */
export function strongest(one: Access, other: Access): Access {
  return STRENGTH[one] >= STRENGTH[other] ? one : other;
}
