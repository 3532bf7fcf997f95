import type { HostUri } from "../config/host_uri.ts";
import { LockvisorError } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import { isPlaceOf, jobUnderWay } from "../manager/disk_job_record.ts";
import { unprotectedMove } from "../manager/unprotected.ts";
import type { GuestRecord, RecordedResource } from "../manager/guest_record.ts";
import { type CommandChanges, destinationCommand } from "./destination_command.ts";
import { ownPaths } from "./own_paths.ts";
import { mapPath, type PathMapping } from "./path_map.ts";
import { presentCommand, refuseMissingDevices } from "./present_command.ts";
import type { PresentDevices } from "./present_devices.ts";

/** What a guest is at its destination, as far as that differs from what it is here. */
export interface MovePlan {
  command: string[];
  /** Where the command runs, if there is such a directory. */
  directory: string;
  /** Its QMP socket. */
  qmp: string;
  /** Each resource with its name there. */
  resources: { resource: RecordedResource; name: string }[];
  /** The disks that have another name there, each by itself. */
  map: PathMapping[];
  /** The ids of the disks that were plugged in since the start, and of the devices that have gone since. */
  plugged: string[];
  unplugged: string[];
  warnings: string[];
}

/**
 * Says what stands in the way of moving a guest so, as far as its record tells.
 * @throws {LockvisorError} `data`
 */
export function requireMovable(record: GuestRecord): GuestRecord & { qmp: string } {
  const { name, command, qmp } = record;
  if (qmp === null) {
    throw new LockvisorError(
      "data",
      `guest "${name}" has no QMP socket, through which its QEMU is told to move; move it by hand: lockvisor migrate prepare, in, complete`,
    );
  }
  if (command.length === 0) {
    throw new LockvisorError(
      "data",
      `guest "${name}" was adopted, and its command is not known; move it by hand: lockvisor migrate prepare, in, complete`,
    );
  }
  const why = unprotectedMove(record) ?? jobUnderWay(record);
  if (why !== undefined) throw new LockvisorError("data", `guest "${name}" cannot migrate: it ${why}`);
  return { ...record, qmp };
}

/**
 * Works out what a guest is to be at its destination.
 * @param directory where its command runs here
 * @param present what its QEMU has now
 * @throws {LockvisorError} `data` for a guest that cannot be moved so, `usage` where another QEMU of the same host would
 * have what this one has
 */
export function planMove(
  record: GuestRecord & { qmp: string },
  { directory, destination, changes, present }: {
    directory: string;
    destination: HostUri;
    changes: Omit<CommandChanges, "incoming">;
    present: PresentDevices;
  },
): MovePlan {
  const { name, qmp, resources } = record;
  const { command: here, ...devices } = presentCommand(record, present, changes);
  const there = destinationCommand(here, { ...changes, incoming: "defer" });
  refuseMissingDevices(name, there, present);
  refuseReplacedImages(record, there, { map: changes.map, present });
  const plan: MovePlan = {
    command: there,
    directory: mapPath(directory, changes.map),
    qmp: mapPath(qmp, changes.map),
    resources: resources.map((resource) => ({
      resource,
      name: resource.type === "disk" ? mapPath(resource.name, changes.map) : resource.name,
    })),
    map: [],
    ...devices,
  };
  plan.map = plan.resources
    .filter(({ resource, name }) => name !== resource.name)
    .map(({ resource, name }) => ({ from: resource.name, to: name }));
  if (destination.kind === "local") refuseSamePaths(record, plan, { directory, qmp });
  return plan;
}

/** The command is that of the start: a disk that has another image since would be opened with the old one there. */
function refuseReplacedImages(
  { name, replacedImages = [] }: Pick<GuestRecord, "name" | "replacedImages">,
  there: readonly string[],
  { map, present: { devices, drives } }: { map: readonly PathMapping[]; present: PresentDevices },
): void {
  const isThere = (place: string) =>
    drives.has(place) || place.startsWith("/machine/peripheral-anon/") ||
    devices.some(({ id }) => id !== undefined && isPlaceOf(id, place));
  const missing = replacedImages.find(({ disk, to }) =>
    isThere(disk) && !there.some((word) => namesFile(word, mapPath(to, map)))
  );
  if (missing === undefined) return;
  const { from, to } = missing;
  throw new LockvisorError(
    "data",
    `guest "${name}" cannot migrate: it writes ${to}, and its command names ${from}, which it had at its start; state its disks as they are now, such as --set drive=file=${to},…`,
  );
}

/** Whether a word of a command names a file, and not one whose name only begins so. */
function namesFile(word: string, path: string): boolean {
  const written = path.replaceAll(",", ",,");
  for (let at = word.indexOf(written); at >= 0; at = word.indexOf(written, at + 1)) {
    if (/^($|[,"'}\s])/.test(word.slice(at + written.length).replace(/^,,/, "-"))) return true;
  }
  return false;
}

function refuseSamePaths(
  { name, command }: Pick<GuestRecord, "name" | "command">,
  plan: MovePlan,
  here: { directory: string; qmp: string },
): void {
  const taken = new Set([here.qmp, ...ownPaths(command).map((path) => absolutePath(path, here.directory))]);
  const wanted = [plan.qmp, ...ownPaths(plan.command).map((path) => absolutePath(path, plan.directory))];
  const clash = wanted.find((path) => taken.has(path));
  if (clash === undefined) return;
  throw new LockvisorError(
    "usage",
    `guest "${name}" has ${clash} here, and would have it at local: too; give it another there: --map ${clash}=OTHER`,
  );
}
