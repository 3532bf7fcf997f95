import { resourcesAttach } from "../domain_lock.ts";
import { endPlug, openFiles } from "./unplug_disk.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { HostSession } from "../host_session.ts";
import type { ResourceSpec } from "../identity/resource.ts";
import { currentRecord } from "../manager/attached_record.ts";
import { hasMonitor } from "../manager/guest_monitor.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import type { HotplugReport } from "../manager/hotplug_plan.ts";
import { type PlugMonitor, withPlugMonitor } from "../manager/plug_device.ts";
import { isOfRequest, planPlug } from "../manager/plug_plan.ts";
import { lookAtPlug } from "../manager/plug_view.ts";
import { type PluggedDisk, withPlugged } from "../manager/plugged_disk.ts";
import { lifeOf } from "../process/process_identity.ts";
import type { PlugRequest } from "../qemu/plug_request.ts";
import { QmpCommandError } from "../qmp/client.ts";

/** What plugging a disk in has done. */
export interface PluggedReport {
  outcome: "plugged" | "was-plugged";
  locks: HotplugReport;
}

/** A disk to plug in, with the locks that it needs. */
export interface DiskToPlug {
  request: PlugRequest;
  /** The disk and its backing files. */
  disks: readonly ResourceSpec[];
  /** Asked when the locks are there. @throws {LockvisorError} when the images are not any more what was locked */
  confirm(): Promise<void>;
}

/** How long a device that was plugged in may take to go, when that failed afterwards, in milliseconds. */
const ROLLBACK_MS = 5000;

/** A guest whose QEMU can be asked. @throws {LockvisorError} `data` for one without a QMP socket */
export function requireMonitor(record: GuestRecord): GuestRecord & { qmp: string } {
  if (hasMonitor(record)) return record;
  throw new LockvisorError(
    "data",
    `guest "${record.name}" was started without its QMP socket: start it with run --qmp PATH, or plug the disk by hand between lockvisor acquire and release`,
  );
}

/**
 * Locks a disk with its backing files, then plugs it into a guest that runs; all of it or nothing. Again with the same
 * disk and id it does what is left to do.
 * @throws {LockvisorError} `locked`; `data` for a guest without a monitor, an id that is something else's, or a device
 * that QEMU refuses
 */
export function plugDisk(session: HostSession, guest: GuestRecord, disk: DiskToPlug): Promise<PluggedReport> {
  const { store } = session;
  return store.withPlugging(guest.uuid, async () => {
    const record = requireMonitor(currentRecord(store, guest));
    const plan = await withPlugMonitor(record, (monitor) => planNow(monitor, record, disk.request));
    if (plan !== "plugged") announce(session, record, disk);
    let locks: HotplugReport;
    try {
      locks = await resourcesAttach(await session.domainLock(record), record, disk.disks);
      failpoint("disk-plug.locked");
      await disk.confirm();
      if (plan !== "plugged") await withPlugMonitor(record, (monitor) => addDisk(monitor, record, disk));
    } catch (error) {
      if (plan !== "plugged") await rollBack(session, record, { disk, error });
      throw explained(error, record);
    }
    const entry = plan === "plugged" ? notedEntry(session, record, disk.request) : entryOf(disk.request);
    note(session, record, { ...entry, disks: disk.disks.map(nameAndAccess) });
    return { outcome: plan === "plugged" ? "was-plugged" : "plugged", locks };
  });
}

/** Writes down what is locked for this disk alone, before that is done. */
function announce(session: HostSession, record: GuestRecord, { request, disks }: DiskToPlug): void {
  const earlier = record.plugged?.find(({ id }) => id === request.id)?.disks ?? [];
  const had = new Set(record.resources.map(({ name }) => name));
  const added = disks.filter(({ name }) => !had.has(name)).map(nameAndAccess);
  note(session, record, { ...entryOf(request), disks: [...earlier, ...added] });
}

async function planNow(monitor: PlugMonitor, { name }: GuestRecord, request: PlugRequest) {
  return planPlug(await lookAtPlug(monitor.client, request.id), request, name);
}

/** Tells QEMU, whatever of it is left to do by now. */
async function addDisk(monitor: PlugMonitor, record: GuestRecord, { request }: DiskToPlug): Promise<void> {
  const plan = await planNow(monitor, record, request);
  if (plan === "plugged") return;
  if (plan === "add") await monitor.client.execute("blockdev-add", request.blockdev);
  failpoint("disk-plug.node-added");
  await monitor.client.execute("device_add", request.device);
  failpoint("disk-plug.device-added");
}

/** Takes away what a plug that failed has left in QEMU, then what was locked for it. */
async function rollBack(
  session: HostSession,
  record: GuestRecord & { qmp: string },
  { disk: { request }, error }: { disk: DiskToPlug; error: unknown },
): Promise<void> {
  if (lifeOf(record.carriers[0]) === "dead") return; // its locks have ended with it
  try {
    const inUse = await withPlugMonitor(record, async (monitor) => {
      const view = await lookAtPlug(monitor.client, request.id);
      if (isOfRequest(view, request)) await removeAll(monitor, request, view.device.kind);
      return await openFiles(monitor, request.id);
    });
    await endPlug(session, record, { id: request.id, inUse });
  } catch (failure) {
    throw new LockvisorError(
      error instanceof LockvisorError ? error.code : "unavailable",
      `${messageOf(error)}; it could not be undone (${messageOf(failure)}), and disk ${request.path} stays ` +
        `locked for guest "${record.name}": run lockvisor disk unplug ${record.name} ${request.id}`,
      { cause: error },
    );
  }
}

async function removeAll(
  monitor: PlugMonitor,
  { id, node }: PlugRequest,
  device: "absent" | "disk" | "other",
): Promise<void> {
  if (device !== "absent") {
    const end = await monitor.removeDevice({ id, timeoutMs: ROLLBACK_MS });
    if (end !== "gone") throw new LockvisorError("locked", `the guest does not give device "${id}" up`);
  }
  await monitor.removeNode(node.name);
}

/** What QEMU refuses is told in its own words. */
function explained(error: unknown, { name }: GuestRecord): unknown {
  if (!(error instanceof QmpCommandError)) return error;
  const command = String(error.details.command);
  return new LockvisorError(
    "data",
    `the QEMU of guest "${name}" refuses the disk (${command}: ${error.description}); nothing is plugged in, and nothing was locked for it`,
    { cause: error },
  );
}

function note({ store }: HostSession, record: GuestRecord, entry: PluggedDisk): void {
  store.update(record, (current) => ({ ...current, plugged: withPlugged(current.plugged, entry.id, entry) }));
}

function entryOf({ id, node, blockdev, device }: PlugRequest): Omit<PluggedDisk, "disks"> {
  return { id, node: node.name, blockdev, device };
}

/** Of a disk that is plugged in already only what is written down is what QEMU was told: its options may be others. */
function notedEntry(
  { store }: HostSession,
  guest: GuestRecord,
  { id, node }: PlugRequest,
): Omit<PluggedDisk, "disks"> {
  return currentRecord(store, guest).plugged?.find((each) => each.id === id) ?? { id, node: node.name };
}

function nameAndAccess({ name, access }: ResourceSpec): PluggedDisk["disks"][number] {
  return { name, access };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
