import { type DomainLock, resourcesAttach, resourcesChangeAccess, resourcesDetach } from "../domain_lock.ts";
import type { Holder } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { resolveOnHost } from "../host_lock.ts";
import type { HostSession } from "../host_session.ts";
import type { ResourceSpec } from "../identity/resource.ts";
import { AbsentGuest } from "../manager/absent_guest.ts";
import type { GuestRecord, RecordedResource } from "../manager/guest_record.ts";
import type { ReconcileStep } from "../manager/reconcile_plan.ts";
import { diskOfStep, type ReconciledDisk } from "../manager/reconcile_report.ts";

/**
 * Carries out one step of a reconciliation. What somebody else has is noted in the guest's record; other errors are told with
 * the disk, and stop nothing else.
 * @throws {AbsentGuest} when the guest has ended meanwhile
 */
export async function applyStep(
  session: HostSession,
  record: GuestRecord,
  step: ReconcileStep,
): Promise<ReconciledDisk> {
  const disk = diskOfStep(step);
  try {
    switch (step.kind) {
      case "lock":
        return await lockOpen(session, record, step, disk);
      case "strengthen":
        return await strengthen(session, record, step, disk);
      case "weaken":
        await resourcesChangeAccess(await session.domainLock(record), record, [
          specOf(step.resource, step.access),
        ]);
        return disk;
      case "release":
        await resourcesDetach(await session.domainLock(record), record, [specOf(step.resource)]);
        return disk;
      case "kept":
      case "unused":
        // It is known that it is not written any more.
        if (step.resource.written !== undefined && (step.kind === "unused" || step.use === "open")) {
          change(session, record, step.resource, withoutWritten);
        }
        return disk;
    }
  } catch (error) {
    if (!(error instanceof LockvisorError) || error instanceof AbsentGuest) throw error;
    return { name: disk.name, access: disk.access, result: "failed", error };
  }
}

/** Locks what is open. The guest has it already, so it goes without the lock where somebody else has it. */
async function lockOpen(
  session: HostSession,
  record: GuestRecord,
  { disk, access, instead }: Extract<ReconcileStep, { kind: "lock" }>,
  { name }: ReconciledDisk,
): Promise<ReconciledDisk> {
  if (instead !== undefined && instead.access !== access) {
    change(session, record, instead, (current) => ({ ...current, access }));
  }
  const lock = await session.domainLock(record);
  const goOn: DomainLock = { ...lock, options: { ...lock.options, enforce: "warn" } };
  const spec: ResourceSpec = instead === undefined
    ? { type: "disk", name: disk.name, access, followed: true }
    : specOf(instead, access);
  const { done: [outcome] } = await resourcesAttach(goOn, record, [spec]);
  if (outcome?.kind === "unprotected") {
    const holder = recorded(session, record, outcome.resource)?.unprotected?.holder ?? null;
    return { name, access, result: "unprotected", holder };
  }
  return { name, access, result: "lock" };
}

/** Takes a stronger lock on what QEMU writes. Where somebody else has it, the record says that it is written without. */
async function strengthen(
  session: HostSession,
  record: GuestRecord,
  { resource, access }: Extract<ReconcileStep, { kind: "strengthen" }>,
  disk: ReconciledDisk,
): Promise<ReconciledDisk> {
  try {
    await resourcesChangeAccess(await session.domainLock(record), record, [specOf(resource, access)]);
  } catch (error) {
    const holders = holdersIn(error);
    if (holders === undefined) throw error;
    const [holder = null] = holders;
    const { identities } = resolveOnHost(session, specOf(resource, access));
    const written = {
      access,
      holder,
      // What was only read may have no lock at all (setting readonly).
      identities: identities.filter(({ key }) => resource.keys.length === 0 || resource.keys.includes(key)),
    };
    change(session, record, resource, (current) => ({ ...current, written }));
    return { name: disk.name, access, result: "unprotected", holder };
  }
  change(session, record, resource, withoutWritten);
  return disk;
}

/** Who has what was refused; undefined for any other error. */
function holdersIn(error: unknown): Holder[] | undefined {
  if (!(error instanceof LockvisorError) || error.code !== "locked") return undefined;
  const { holders } = error.details as { holders?: Holder[] };
  return holders;
}

function withoutWritten({ written: _, ...resource }: RecordedResource): RecordedResource {
  return resource;
}

function change(
  { store }: HostSession,
  record: GuestRecord,
  resource: RecordedResource,
  edit: (current: RecordedResource) => RecordedResource,
): void {
  store.update(record, (current) => ({
    ...current,
    resources: current.resources.map((each) => isSame(each, resource) ? edit(each) : each),
  }));
}

function recorded(
  { store }: HostSession,
  record: GuestRecord,
  resource: Pick<RecordedResource, "type" | "name">,
): RecordedResource | undefined {
  const entry = store.reread(record);
  return entry?.kind === "record" ? entry.record.resources.find((each) => isSame(each, resource)) : undefined;
}

function isSame(
  one: Pick<RecordedResource, "type" | "name">,
  other: Pick<RecordedResource, "type" | "name">,
): boolean {
  return one.type === other.type && one.name === other.name;
}

function specOf({ type, name, access, followed }: RecordedResource, wanted = access): ResourceSpec {
  return { type, name, access: wanted, ...(followed === undefined ? {} : { followed }) };
}
