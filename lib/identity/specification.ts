import { ACCESSES, isAccess } from "../access.ts";
import { LockvisorError } from "../errors.ts";
import { isNetworkDisk } from "./network_disk.ts";
import type { ResourceSpec } from "./resource.ts";

/** How many characters a lease's key may have. */
export const MAXIMUM_LEASE_KEY = 255;

const LOCKSPACE_NAME = /^[A-Za-z0-9_.-]{1,64}$/;
// deno-lint-ignore no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/;

/**
 * A disk as the command line writes it: `PATH[,access=exclusive|shared|readonly]`. A comma in the path is
 * doubled, as QEMU wants it. The access is `exclusive` unless given.
 *
 * @throws LockvisorError `usage`
 */
export function parseDisk(text: string): ResourceSpec {
  const { name, access } = parseParts(text, "disk");
  if (name === "") throw new LockvisorError("usage", `disk "${text}" has no path; wanted PATH[,access=…]`);
  return { type: "disk", name, access };
}

/**
 * A lease as the command line writes it: `LOCKSPACE:KEY[,access=exclusive|shared|readonly]`. The first colon
 * ends the lockspace; a comma in the key is doubled.
 *
 * @throws LockvisorError `usage`
 */
export function parseLease(text: string): ResourceSpec {
  const { name, access } = parseParts(text, "lease");
  checkLeaseName(name);
  return { type: "lease", name, access };
}

/**
 * A disk or a lease, whichever the text is. A network disk, an existing file, and whatever begins like a path
 * (a `/` before the first colon, or `.`) is a disk; else `LOCKSPACE:KEY` is a lease; else it is a disk.
 *
 * @throws LockvisorError `usage`
 */
export function parseResource(text: string, exists: (path: string) => boolean): ResourceSpec {
  const disk = parseDisk(text);
  if (
    isNetworkDisk(disk.name) || /^(\.|[^:]*\/|(file|host_device|host_cdrom):|[^:/]*:\/\/)/.test(disk.name)
  ) return disk;
  if (!disk.name.includes(":") || exists(disk.name)) return disk;
  return LOCKSPACE_NAME.test(disk.name.slice(0, disk.name.indexOf(":"))) ? parseLease(text) : disk;
}

/** A disk as {@linkcode parseDisk} or a lease as {@linkcode parseLease} reads it back. */
export function formatResource(spec: ResourceSpec): string {
  return `${spec.name.replaceAll(",", ",,")},access=${spec.access}`;
}

/**
 * The two halves of a lease's name.
 *
 * @throws LockvisorError `usage` unless the name is `LOCKSPACE:KEY`
 */
export function checkLeaseName(name: string): { lockspace: string; key: string } {
  const colon = name.indexOf(":");
  if (colon < 0) throw new LockvisorError("usage", `lease "${name}" has no colon; wanted LOCKSPACE:KEY`);
  const lockspace = name.slice(0, colon);
  const key = name.slice(colon + 1);
  if (!LOCKSPACE_NAME.test(lockspace)) {
    throw new LockvisorError(
      "usage",
      `lease "${name}": the lockspace "${lockspace}" must be 1 to 64 of the characters A-Z a-z 0-9 _ . -`,
    );
  }
  if (key === "") throw new LockvisorError("usage", `lease "${name}" has no key; wanted LOCKSPACE:KEY`);
  if ([...key].length > MAXIMUM_LEASE_KEY) {
    throw new LockvisorError(
      "usage",
      `lease "${name.slice(0, 40)}…": the key has ${
        [...key].length
      } characters; at most ${MAXIMUM_LEASE_KEY}`,
    );
  }
  if (UNPRINTABLE.test(key)) {
    throw new LockvisorError("usage", `lease "${name}": the key has control characters; only printable ones`);
  }
  return { lockspace, key };
}

function parseParts(text: string, what: "disk" | "lease"): Pick<ResourceSpec, "name" | "access"> {
  const [name = "", ...options] = splitAtCommas(text);
  let access: ResourceSpec["access"] | undefined;
  for (const option of options) {
    const equals = option.indexOf("=");
    const optionName = equals < 0 ? option : option.slice(0, equals);
    const value = equals < 0 ? "" : option.slice(equals + 1);
    if (optionName !== "access" || equals < 0) {
      throw new LockvisorError(
        "usage",
        `${what} "${text}": unknown option "${optionName}"; only access=${ACCESSES.join("|")} may follow` +
          (what === "disk" ? ", and a comma in the path is doubled" : ", and a comma in the key is doubled"),
      );
    }
    if (access !== undefined) throw new LockvisorError("usage", `${what} "${text}": access is given twice`);
    if (!isAccess(value)) {
      throw new LockvisorError(
        "usage",
        `${what} "${text}": access "${value}" is unknown; it is one of ${ACCESSES.join(", ")}`,
      );
    }
    access = value;
  }
  return { name, access: access ?? "exclusive" };
}

/** Splits at single commas; from the left, two commas together stand for one that belongs to the text. */
function splitAtCommas(text: string): string[] {
  const parts: string[] = [];
  let part = "";
  for (let index = 0; index < text.length; index++) {
    if (text[index] !== ",") part += text[index];
    else if (text[index + 1] === ",") part += text[index++];
    else {
      parts.push(part);
      part = "";
    }
  }
  return [...parts, part];
}
