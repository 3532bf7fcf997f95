import { fileError, LockvisorError } from "../errors.ts";

export { hidesLocks, isNetworkFilesystem } from "./filesystems.ts";

/** One line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)). */
export interface Mount {
  id: number;
  /** The mount that this one sits on; for the topmost it is not in the list, or is the mount itself. */
  parentId: number;
  /** The device number of the filesystem. On btrfs it is not the `st_dev` of the files. */
  major: number;
  minor: number;
  /** The directory of the filesystem that the mount shows: `/` unless it is a bind mount or a subvolume. */
  root: string;
  mountPoint: string;
  fstype: string;
  /** What is mounted: a device, `server:/export`, a tag, or any word. */
  source: string;
  /** Options of the mount, then those of the filesystem. */
  options: string[];
}

/**
 * The mounts of this process.
 *
 * @throws LockvisorError `io` or `permission` if the file cannot be read or is not what the kernel writes
 */
export function readMounts(file = "/proc/self/mountinfo"): Mount[] {
  return parseMountinfo(readMountinfo(file), file);
}

/**
 * The mounts that a canonical absolute path may be on: those at the path or above it. Enough for
 * {@linkcode mountOf}, since a mount's parent is mounted above it, and much less to read on a host with many.
 */
export function readMountsAlong(path: string, file = "/proc/self/mountinfo"): Mount[] {
  const lines = readMountinfo(file).split("\n");
  const along = lines.filter((line) => {
    const mountPoint = mountPointOf(line);
    return mountPoint !== undefined && isWithin(path, mountPoint);
  });
  return parseMountinfo(along.join("\n"), file);
}

/** The mount point in one line of a mountinfo file, or undefined when it has none. */
export function mountPointOf(line: string): string | undefined {
  const mountPoint = line.split(" ", 5)[4];
  return mountPoint === undefined ? undefined : unescapeOctal(mountPoint);
}

function readMountinfo(file: string): string {
  let text;
  try {
    text = Deno.readTextFileSync(file);
  } catch (error) {
    throw fileError(`read ${file}, which tells on what filesystem a disk is`, error);
  }
  return text;
}

/**
 * The lines of a mountinfo file, in their order.
 *
 * @throws LockvisorError `io` naming the line that cannot be understood
 */
export function parseMountinfo(text: string, file = "/proc/self/mountinfo"): Mount[] {
  const mounts: Mount[] = [];
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  for (const [index, line] of lines.entries()) {
    const mount = parseLine(line);
    if (mount === undefined) {
      throw new LockvisorError("io", `cannot understand line ${index + 1} of ${file}: "${line}"`);
    }
    mounts.push(mount);
  }
  return mounts;
}

/** ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG…] - FSTYPE SOURCE SUPEROPTIONS; a source may be empty. */
function parseLine(line: string): Mount | undefined {
  const fields = line.split(" ");
  const dash = fields.indexOf("-", 6);
  const numbers = /^(\d+) (\d+) (\d+):(\d+) /.exec(line);
  const [, , , root, mountPoint, options] = fields;
  const [fstype, source, superOptions] = fields.slice(dash + 1);
  if (numbers === null || dash < 0 || root === undefined || mountPoint === undefined) return undefined;
  if (options === undefined || fstype === undefined || source === undefined || fstype === "") {
    return undefined;
  }
  return {
    id: Number(numbers[1]),
    parentId: Number(numbers[2]),
    major: Number(numbers[3]),
    minor: Number(numbers[4]),
    root: unescapeOctal(root),
    mountPoint: unescapeOctal(mountPoint),
    fstype: unescapeOctal(fstype),
    source: unescapeOctal(source),
    options: [...options.split(","), ...(superOptions ?? "").split(",")].filter((option) => option !== "")
      .map(unescapeOctal),
  };
}

/** Undoes the kernel's escapes: space, tab, line break, backslash and `#` come as `\` and three octal digits. */
export function unescapeOctal(text: string): string {
  if (!text.includes("\\")) return text;
  return text.replace(/\\([0-3][0-7]{2})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
}

/**
 * The mount that a canonical absolute path is on, found as the kernel finds it: down from the topmost mount,
 * and in each mount to the child that the path meets first. So a mount that lies hidden beneath a later one is
 * not chosen. Undefined where no mount covers the path, as in a chroot that is not a mount point.
 */
export function mountOf(path: string, mounts: readonly Mount[]): Mount | undefined {
  const ids = new Set(mounts.map((mount) => mount.id));
  const childrenOf = new Map<number | undefined, Mount[]>();
  for (const mount of mounts) {
    if (!isWithin(path, mount.mountPoint)) continue;
    const parent = mount.parentId !== mount.id && ids.has(mount.parentId) ? mount.parentId : undefined;
    const siblings = childrenOf.get(parent);
    if (siblings === undefined) childrenOf.set(parent, [mount]);
    else siblings.push(mount);
  }
  let current: Mount | undefined;
  for (let step = 0; step <= mounts.length; step++) {
    const children = childrenOf.get(current?.id);
    if (children === undefined) return current;
    current = children.reduce((best, child) =>
      child.mountPoint.length <= best.mountPoint.length ? child : best
    );
  }
  throw new LockvisorError("io", `the mounts around ${path} go in a circle in /proc/self/mountinfo`);
}

/** Where a path on a mount is inside the mounted filesystem: the same for every bind mount of it. */
export function pathInside(mount: Mount, path: string): string {
  const relative = mount.mountPoint === "/" ? path : path.slice(mount.mountPoint.length);
  const inside = (mount.root === "/" ? "" : mount.root) + (relative === "/" ? "" : relative);
  return inside === "" ? "/" : inside;
}

/** Whether a canonical path is a directory itself or lies in it. */
export function isWithin(path: string, directory: string): boolean {
  return directory === "/" ? path.startsWith("/") : path === directory || path.startsWith(`${directory}/`);
}

/**
 * What a file on a network mount is called on every host: the mount's source and the path from there on. GlusterFS
 * shows `SERVER:VOLUME`, `SERVER:/VOLUME` or `SERVER:VOLUME/DIRECTORY`, and any server of the cluster will do for the
 * same volume, so only the volume counts. Without a volume's name (`(null)`) the source stays as it is.
 */
export function nameOnEveryHost(
  { fstype, source }: Pick<Mount, "fstype" | "source">,
  pathInMount: string,
): { source: string; path: string } {
  if (fstype.replace(/^fuse\./, "") !== "glusterfs") return { source, path: pathInMount };
  // A server is a name, an address (IPv6 has colons), or the path of a management daemon's socket.
  const match = /^(?:[^/]*|\/.*):\/?([A-Za-z0-9_-]+)(\/.*)?$/.exec(source);
  if (match === null) return { source, path: pathInMount };
  const directory = (match[2] ?? "").replace(/\/+$/, "");
  return { source: match[1]!, path: directory + pathInMount };
}
