import { formatTicket, type MigrationTicket } from "../domain_migration.ts";
import type { PluggedReport } from "../disk_plug/plug_disk.ts";
import type { UnpluggedReport } from "../disk_plug/unplug_disk.ts";
import type { Forecast, Holder, Inspection, ResolvedResource } from "../driver/contract.ts";
import type { LockvisorError } from "../errors.ts";
import type { AttachedGuest } from "../manager/attach_guests.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import type { ObservedGuest } from "../manager/guest_view.ts";
import type { HotplugReport } from "../manager/hotplug_plan.ts";
import { shownName } from "../qemu/found_disks.ts";
import type { PlugRequest } from "../qemu/plug_request.ts";
import type { ReconciledDisk, ReconcileMode, ReconcileReport } from "../guest_reconcile.ts";
import type { UserWithoutLock } from "../host_lock.ts";
import type { StoppedGuest } from "../guest_stop.ts";
import type { FoundMigration, MigrationOutcome, ObservedMigration } from "../host_migrations.ts";

/*
 * What commands have done and seen, as programs read it: the same words on the command line with --json and from the
 * agent.
 */

/** A host's guests; `fault` tells why not all is known. */
export function guestsResult(guests: readonly ObservedGuest[], fault: LockvisorError | undefined) {
  return { guests: guests.map(guestResult), ...fault?.toJSON() };
}

/** A guest with what the kernel shows of its locks. */
export function guestResult({ view, locks }: ObservedGuest) {
  return { ...view, locks };
}

/** What was locked, or given up, resource by resource. */
export function hotplugResult({ done, warnings }: HotplugReport) {
  const resources = done.map(({ kind, resource: { type, name, access } }) => ({
    type,
    name,
    access,
    result: kind,
  }));
  return { resources, warnings };
}

/** A disk that was plugged into a guest, and what was locked for it. */
export function pluggedResult(
  { uuid, name }: GuestRecord,
  { id, path, node }: PlugRequest,
  { outcome, locks }: PluggedReport,
) {
  const disk = { id, path, node: node.name, format: node.driver };
  return { guest: { uuid, name }, disk, outcome, ...hotplugResult(locks) };
}

/** A disk that was unplugged from a guest, and what was released. */
export function unpluggedResult(
  { uuid, name }: GuestRecord,
  id: string,
  { outcome, locks }: UnpluggedReport,
) {
  return { guest: { uuid, name }, disk: { id }, outcome, ...hotplugResult(locks) };
}

/** What a guest's QEMU has open, and what was done about its locks. */
export function reconcileResult(
  { uuid, name }: GuestRecord,
  { source, skipped, disks, jobs, warnings }: ReconcileReport,
  mode: ReconcileMode,
) {
  const guest = { uuid, name };
  return {
    guest,
    dryRun: mode === "tell",
    source,
    skipped,
    disks: disks.map(reconciledDisk),
    jobs,
    warnings,
  };
}

function reconciledDisk(disk: ReconciledDisk) {
  const { access, result } = disk;
  const facts = { name: shownName(disk.name), access, result };
  switch (disk.result) {
    case "kept":
      return { ...facts, use: disk.use };
    case "unprotected":
      return { ...facts, holder: disk.holder };
    case "failed":
      return { ...facts, ...disk.error.toJSON() };
    default:
      return facts;
  }
}

/** A guest after a pause or a resume, with what it has given up; `lockState` is libvirt's lock state, as text. */
export function pauseResult({ uuid, name, state, givenUp }: GuestRecord, lockState: string | null) {
  return { guest: { uuid, name, state }, givenUp, lockState };
}

/** How a guest was stopped, and whether its locks are free. */
export function stopResult({ guest, outcome, tookMs, locks }: StoppedGuest) {
  const facts = outcome.kind === "by"
    ? { outcome: "stopped", by: outcome.means }
    : { outcome: "already-stopped", by: null };
  return { guest, ...facts, tookMs, locks };
}

/** A guest that may move: its ticket, or the file that it is in. */
export function preparedResult(ticket: MigrationTicket, file: string | undefined) {
  const { guest: { uuid, name }, destination, expires } = ticket;
  const where = file === undefined ? { ticket: JSON.parse(formatTicket(ticket)) } : { ticketFile: file };
  return { guest: { uuid, name }, destination, expires, ...where };
}

/** What became of one side of a migration; `holders` have the other half of the locks. */
export function migrationEndResult(
  found: FoundMigration,
  outcome: MigrationOutcome | "at-rest",
  holders: readonly Holder[],
) {
  if (found.kind === "past") {
    return { guest: { uuid: found.uuid, name: null, state: "stopped" }, side: null, outcome, holders };
  }
  const { uuid, name, state, migration } = found.record;
  return { guest: { uuid, name, state }, side: migration?.role ?? null, outcome, holders };
}

/** A guest on its way, and what is left to do on this host. */
export function migrationResult({ record, view, other, next }: ObservedMigration) {
  const { uuid, name, state, carriers: [{ pid }], migration } = record;
  return {
    guest: { uuid, name, state, pid },
    side: migration.role,
    otherSide: migration.role === "out" ? migration.destination : migration.source,
    otherSideHasItsHalf: other.held,
    holders: other.holders,
    qemu: view === undefined
      ? null
      : view.kind === "seen"
      ? { run: view.run, sending: view.sending }
      : view.kind,
    ...(migration.role === "out" ? { expires: migration.expires } : {}),
    next: { action: next.action, why: next.why },
  };
}

/** Guests after attaching. */
export function attachResult(guests: readonly AttachedGuest[]) {
  return { guests: guests.map(attachedGuest) };
}

function attachedGuest({ record, repairs, warnings, lost, locked, obstacle, fault }: AttachedGuest) {
  const { uuid, name, state, carriers } = record;
  return {
    uuid,
    name,
    state,
    pid: carriers[0].pid,
    carriers: carriers.map(({ kind, pid }) => ({ kind, pid })),
    locked,
    lost: lost.map(({ type, name, access }) => ({ type, name, access })),
    ...(obstacle === undefined ? {} : { obstacle: { resource: obstacle.resource, ...obstacle.why } }),
    repairs,
    warnings,
    ...(fault === undefined ? {} : fault.toJSON()),
  };
}

/** Whether all would be granted, and what stands in the way of each. */
export function checkResult(forecasts: readonly Forecast[]) {
  return { granted: forecasts.every(isGranted), resources: forecasts.map(forecastResult) };
}

/** A resource that is locked already, or would be refused, is not granted; one that needs no lock is. */
function isGranted({ verdict }: Forecast): boolean {
  return verdict !== "refused";
}

/** What one resource would meet. */
export function forecastResult({ resource, verdict, holders }: Forecast) {
  const { type, name, access } = resource;
  return { type, name, access, identities: identitiesOf(resource), verdict, holders };
}

/** What a disk or lease is called, who has it, and who uses it without the lock that this needs. */
export function inspectionResult(
  resource: ResolvedResource,
  { locked, generation, holders }: Inspection,
  unprotected: readonly UserWithoutLock[],
) {
  const { type, name } = resource;
  const facts = { resource: { type, name, identities: identitiesOf(resource) }, locked, generation, holders };
  return unprotected.length === 0 ? facts : { ...facts, unprotected };
}

function identitiesOf({ identities }: ResolvedResource) {
  return identities.map(({ text, key }) => ({ text, key }));
}
