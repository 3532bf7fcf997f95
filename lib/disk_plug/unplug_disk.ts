import { resourcesDetach } from "../domain_lock.ts";
import { keysOfFile } from "./disk_keys.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { HostSession } from "../host_session.ts";
import type { ResourceSpec } from "../identity/resource.ts";
import { currentRecord } from "../manager/attached_record.ts";
import { closeNodes } from "../manager/close_nodes.ts";
import { lookAtChains } from "../manager/disk_chain.ts";
import { isPlaceOf } from "../manager/disk_job_record.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import type { HotplugReport } from "../manager/hotplug_plan.ts";
import { type PlugMonitor, withPlugMonitor } from "../manager/plug_device.ts";
import { lookAtPlug, type PlugView } from "../manager/plug_view.ts";
import { type PluggedDisk, withPlugged } from "../manager/plugged_disk.ts";
import { nodeNameOf } from "../qemu/plug_request.ts";

/** What unplugging a disk has done. */
export interface UnpluggedReport {
  outcome: "unplugged" | "not-plugged";
  locks: HotplugReport;
}

/** A disk to unplug, and how long its guest may take. */
export interface DiskToUnplug {
  id: string;
  timeoutMs: number;
}

/**
 * Has a guest give a disk up, then releases what nothing else in the guest uses. Again it does what is left to do.
 * @throws {LockvisorError} `locked` when the guest does not give it up: nothing is released then; `data` for an id that
 * is no disk's
 */
export function unplugDisk(
  session: HostSession,
  guest: GuestRecord & { qmp: string },
  { id, timeoutMs }: DiskToUnplug,
): Promise<UnpluggedReport> {
  const { store } = session;
  return store.withPlugging(guest.uuid, async () => {
    const record = { ...currentRecord(store, guest), qmp: guest.qmp };
    refuseDiskJob(record, id);
    const inUse = await withPlugMonitor(record, async (monitor) => {
      const view = await lookAtPlug(monitor.client, id);
      const found = whatLeaves(session, record, { id, view });
      if (found === undefined) return undefined;
      const chain = view.device.kind === "absent" ? found.chain ?? [] : await nodesBelow(monitor, id);
      const entry = { ...found, chain };
      store.update(record, (current) => ({ ...current, plugged: withPlugged(current.plugged, id, entry) }));
      if (view.device.kind !== "absent") await removeDevice(monitor, record, { id, timeoutMs });
      failpoint("disk-unplug.device-deleted");
      if (view.nodes.some(({ name }) => name === entry.node)) await monitor.removeNode(entry.node);
      await closeNodes(monitor.client, entry.chain);
      failpoint("disk-unplug.node-deleted");
      return await openFiles(monitor, id);
    });
    if (inUse === undefined) {
      return {
        outcome: "not-plugged",
        locks: { done: [], warnings: [`guest "${record.name}" has no disk "${id}"`] },
      };
    }
    return { outcome: "unplugged", locks: await endPlug(session, record, { id, inUse }) };
  });
}

/** The nodes of a disk: after a snapshot, say, each of its images was opened by itself, and does not go with the others. */
async function nodesBelow({ client }: PlugMonitor, id: string): Promise<string[]> {
  const { disks } = await lookAtChains(client, "/");
  return disks.filter(({ ids }) => ids.includes(id)).flatMap(({ chain }) =>
    chain.flatMap(({ nodes }) => nodes)
  );
}

/** @throws {LockvisorError} `locked` */
function refuseDiskJob({ name, diskJobs }: GuestRecord, id: string): void {
  const job = diskJobs?.find(({ disk }) => disk.name === id);
  if (job === undefined) return;
  throw new LockvisorError(
    "locked",
    `disk "${id}" of guest "${name}" has a ${job.kind} under way: wait for its end, or undo it (lockvisor disk abort ${name} ${id}), then unplug it`,
  );
}

/** What there is of an id, in QEMU or written down; undefined when there is nothing. */
function whatLeaves(
  session: HostSession,
  record: GuestRecord,
  { id, view: { device, nodes } }: { id: string; view: PlugView },
): PluggedDisk | undefined {
  if (device.kind === "other") {
    throw new LockvisorError("data", `the device "${id}" of guest "${record.name}" has no disk in it`);
  }
  const noted = record.plugged?.find((each) => each.id === id);
  const node = device.kind === "disk" ? device.node : noted?.node ?? nodeNameOf(id);
  const there = nodes.find(({ name }) => name === node);
  if (device.kind === "absent" && there === undefined && noted === undefined) return undefined;
  const used = there === undefined ? [] : recordedAs(session, record, there.files);
  return { ...noted, id, node, disks: [...noted?.disks ?? [], ...used] };
}

async function removeDevice(
  monitor: PlugMonitor,
  { name }: GuestRecord,
  { id, timeoutMs }: DiskToUnplug,
): Promise<void> {
  const end = await monitor.removeDevice({
    id,
    timeoutMs,
    onRequested: () => failpoint("disk-unplug.requested"),
  });
  if (end === "gone") return;
  const why = end === "refused"
    ? "has refused to give the disk up"
    : `has not given the disk up within ${timeoutMs / 1000} s, as one without a running system does`;
  throw new LockvisorError(
    "locked",
    `guest "${name}" ${why}: disk "${id}" stays plugged in and locked; let the guest's system take its part, then run lockvisor disk unplug ${name} ${id} again`,
  );
}

/** The files that QEMU has open, and the node of an id is not among them any more. */
export async function openFiles(monitor: PlugMonitor, id: string): Promise<string[]> {
  const { nodes } = await lookAtPlug(monitor.client, id);
  return [...new Set(nodes.flatMap(({ files }) => files))];
}

/** Releases what was locked for an id and nothing in QEMU uses, then forgets the id. */
export async function endPlug(
  session: HostSession,
  record: GuestRecord,
  { id, inUse }: { id: string; inUse: readonly string[] },
): Promise<HotplugReport> {
  const { store } = session;
  const current = currentRecord(store, record);
  const leaving = new Set(current.plugged?.find((each) => each.id === id)?.disks.map(({ name }) => name));
  const used = new Set(recordedAs(session, current, inUse).map(({ name }) => name));
  const released = current.resources.filter(({ type, name }) =>
    type === "disk" && leaving.has(name) && !used.has(name)
  ).map(({ type, name, access }): ResourceSpec => ({ type, name, access }));
  const locks = released.length === 0
    ? { done: [], warnings: [] }
    : await resourcesDetach(await session.domainLock(current), current, released);
  store.update(current, ({ plugged, replacedImages, settledJobs, ...rest }) => {
    const left = withPlugged(plugged, id, undefined);
    const replaced = replacedImages?.filter(({ disk }) => !isPlaceOf(id, disk)) ?? [];
    const settled = settledJobs?.filter(({ disk }) => !isPlaceOf(id, disk.place)) ?? [];
    return {
      ...rest,
      ...(left.length === 0 ? {} : { plugged: left }),
      ...(replaced.length === 0 ? {} : { replacedImages: replaced }),
      ...(settled.length === 0 ? {} : { settledJobs: settled }),
    };
  });
  return locks;
}

/** Which of a guest's disks some files are, whatever they are called; relative names are meant from where QEMU runs. */
function recordedAs(
  session: HostSession,
  { resources, carriers: [{ pid }] }: GuestRecord,
  files: readonly string[],
): PluggedDisk["disks"] {
  const names = new Set(files);
  const keys = new Set(files.flatMap((name) => keysOfFile(session, name, pid)));
  return resources.filter(({ type, name, keys: recorded }) =>
    type === "disk" &&
    (names.has(name) || recorded.some((key) => keys.has(key)) ||
      keysOfFile(session, name, pid).some((key) => keys.has(key)))
  ).map(({ name, access }) => ({ name, access }));
}
