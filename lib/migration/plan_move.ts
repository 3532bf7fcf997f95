import type { HostUri } from "../config/host_uri.ts";
import { LockvisorError } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";
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
  const why = unprotectedMove(record);
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
