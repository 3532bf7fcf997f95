import { type Access, isCompatible } from "../access.ts";
import { LockvisorError } from "../errors.ts";
import type { ResourceSpec } from "../identity/resource.ts";
import { type FoundDisk, shownName } from "./found_disks.ts";

/**
 * The resources of a guest: those that were given by hand, and of the disks that QEMU opens those that are not among
 * them, marked as followed. Whatever a disk is called, it is told by its keys; the access that was given by hand counts.
 * @param keysOf the keys that a disk as a whole is locked by; throws for one that is not there
 * @throws {LockvisorError} `data` when the guest uses one disk in two ways that do not go together
 */
export function mergeDisks(
  given: readonly ResourceSpec[],
  found: readonly FoundDisk[],
  keysOf: (disk: ResourceSpec) => readonly string[],
): ResourceSpec[] {
  if (found.length === 0) return [...given];
  const byHand = new Set(given.filter(({ type }) => type === "disk").flatMap(keysOf));
  const merged: { spec: ResourceSpec; origin: string }[] = [];
  const byKey = new Map<string, (typeof merged)[number]>();
  for (const { name, access, origin } of found) {
    const spec: ResourceSpec = { type: "disk", name, access, followed: true };
    const keys = named(origin, () => keysOf(spec));
    if (keys.some((key) => byHand.has(key))) continue;
    const earlier = keys.map((key) => byKey.get(key)).find((each) => each !== undefined);
    if (earlier === undefined) {
      const entry = { spec, origin };
      merged.push(entry);
      for (const key of keys) byKey.set(key, entry);
    } else if (isCompatible(earlier.spec.access, access)) {
      earlier.spec = { ...earlier.spec, access: stronger(earlier.spec.access, access) };
    } else throw usedTwice(earlier, { spec, origin });
  }
  return [...given, ...merged.map(({ spec }) => spec)];
}

/** Of two accesses that go together: who writes is named. */
function stronger(one: Access, other: Access): Access {
  return one === "shared" ? one : other;
}

/** An error about a disk says where the disk comes from, unless the command line itself names it. */
function named<Result>(origin: string, action: () => Result): Result {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    throw new LockvisorError(error.code, `${error.message} (QEMU's ${origin})`, { cause: error });
  }
}

interface Use {
  spec: ResourceSpec;
  origin: string;
}

function usedTwice(earlier: Use, later: Use): LockvisorError {
  const use = ({ spec, origin }: Use) => `${spec.access} as QEMU's ${origin}`;
  return new LockvisorError(
    "data",
    `disk ${shownName(later.spec.name)} is used twice by this guest: ${use(earlier)}, ${
      use(later)
    }; one of the two writes what the other believes to have for itself; leave one out, or state the access with --disk`,
  );
}
