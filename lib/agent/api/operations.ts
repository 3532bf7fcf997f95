import { parseDuration } from "../../config/duration.ts";
import type { Access } from "../../access.ts";
import { processPause, processResume, resourcesAttach, resourcesDetach } from "../../domain_lock.ts";
import { LockvisorError } from "../../errors.ts";
import { reconcileGuest } from "../../guest_reconcile.ts";
import { stopKnownGuest } from "../../guest_stop.ts";
import {
  checkResources,
  hostStatus,
  inspectResource,
  resolveOnHost,
  usersWithoutLock,
} from "../../host_lock.ts";
import type { HostSession } from "../../host_session.ts";
import { diskPath } from "../../identity/disk_facts.ts";
import { isNetworkDisk } from "../../identity/network_disk.ts";
import type { ResourceSpec } from "../../identity/resource.ts";
import { checkLeaseName } from "../../identity/specification.ts";
import { chooseGuest, findGuestIfKnown, findLivingGuest } from "../../manager/find_guest.ts";
import type { GuestRecord } from "../../manager/guest_record.ts";
import { faultOfHost } from "../../manager/guest_view.ts";
import { lifeOf } from "../../process/process_identity.ts";
import { DEFAULT_DRIVER } from "../../manager/registry.ts";
import {
  attachResult,
  checkResult,
  guestResult,
  guestsResult,
  hotplugResult,
  inspectionResult,
  pauseResult,
  reconcileResult,
  stopResult,
} from "../../report/results.ts";
import type { Agent } from "../agent.ts";
import { eventGuest, eventResource, resourcesText } from "../record_changes.ts";
import type { Turns } from "../turns.ts";
import { NotThere } from "./api_error.ts";

/** Disks and leases as a body names them. */
export interface ResourcesBody {
  disks?: { path: string; access?: Access | undefined }[] | undefined;
  leases?: { lockspace: string; key: string; access?: Access | undefined }[] | undefined;
}

/** Who asks for a change. */
export interface Caller {
  agent: Agent;
  /** Aborted when the client has gone. */
  signal: AbortSignal;
}

/** All guests, as `status --json` shows them. */
export async function listGuests({ session }: Agent) {
  const host = await hostStatus(session);
  if (host.fault !== undefined && host.guests.length === 0) throw host.fault;
  return guestsResult(host.guests, faultOfHost(host));
}

/** One guest, by name or UUID. */
export async function showGuest(agent: Agent, nameOrUuid: string) {
  const record = known(agent, nameOrUuid);
  const { guests: [found], fault } = await hostStatus(agent.session, [{ kind: "record", record }]);
  if (fault !== undefined) throw fault;
  if (found === undefined) throw unknown(nameOrUuid); // it has ended
  return guestResult(found);
}

/** Who has a disk or a lease, as `inspect --json` shows it. */
export async function inspectLocks(
  { session }: Agent,
  { disk, lease }: { disk?: string | undefined; lease?: string | undefined },
) {
  const spec = { access: "exclusive" } as const;
  const resource = resolveOnHost(
    session,
    disk === undefined
      ? { ...spec, type: "lease", name: lease! }
      : { ...spec, type: "disk", name: absoluteDisk(disk) },
  );
  const inspection = await inspectResource(session, DEFAULT_DRIVER, resource);
  return inspectionResult(resource, inspection, usersWithoutLock(session, resource));
}

/** Whether all would be granted now. */
export async function checkLocks({ session }: Agent, body: ResourcesBody) {
  const resources = specsOf(body).map((spec) => resolveOnHost(session, spec));
  return checkResult(await checkResources(session, DEFAULT_DRIVER, resources));
}

/** Locks for a guest that runs, before a hotplug: all or none. */
export function acquire(caller: Caller, guest: string, body: ResourcesBody) {
  const specs = specsOf(body);
  return onGuest(caller, guest, async (session, record) => {
    const report = await resourcesAttach(await session.domainLock(record), record, specs);
    return hotplugResult(report);
  }, specs);
}

/** Gives locks up after an unplug. */
export function release(caller: Caller, guest: string, body: ResourcesBody) {
  const specs = specsOf(body);
  return onGuest(caller, guest, async (session, record) => {
    const report = await resourcesDetach(await session.domainLock(record), record, specs);
    return hotplugResult(report);
  });
}

/** Pauses a guest, which keeps its locks unless it is told to give them up. */
export function pause(caller: Caller, guest: string, { release = false }: { release?: boolean | undefined }) {
  return onGuest(caller, guest, async (session, record) => {
    const locks = release ? "released" : "kept";
    const paused = await processPause(await session.domainLock(record), record, locks);
    return pauseResult(paused.record, paused.state);
  });
}

/** Takes back what was given up, then lets the guest run on. */
export function resume(
  caller: Caller,
  guest: string,
  { acceptChanges = false }: { acceptChanges?: boolean | undefined },
) {
  return onGuest(caller, guest, async (session, record) => {
    const changes = acceptChanges ? "accept" : "refuse";
    const resumed = await processResume(await session.domainLock(record), record, { changes });
    return pauseResult(resumed, null);
  });
}

/** Ends a guest and proves that its locks are free. */
export function stop(
  caller: Caller,
  guest: string,
  { powerdown = false, timeout = "30s", killAfter = "10s" }: {
    powerdown?: boolean | undefined;
    timeout?: string | undefined;
    killAfter?: string | undefined;
  },
) {
  const manner = {
    timeoutMs: parseDuration("timeout", timeout),
    killAfterMs: parseDuration("killAfter", killAfter),
    manner: powerdown ? "power-down" : "quit",
  } as const;
  const { agent } = caller;
  return inTurn(caller, { turns: agent.stops, guest, changed: "all" }, async () => {
    const warn = (line: string) => agent.tell({ type: "problem", message: `guest "${guest}": ${line}` });
    return stopResult(await stopKnownGuest(agent.session, guest, { manner, warn }));
  });
}

/** Makes a guest's locks what its QEMU has open. What somebody else has is in the answer, and no refusal. */
export function reconcile(
  caller: Caller,
  guest: string,
  { dryRun = false }: { dryRun?: boolean | undefined },
) {
  const mode = dryRun ? "tell" : "apply";
  return onGuest(
    caller,
    guest,
    async (session, record) => reconcileResult(record, await reconcileGuest(session, record, mode), mode),
  );
}

/** Compares a guest, or all guests, with the kernel, and mends what can be mended. */
export async function attach(agent: Agent, guest: string | undefined) {
  if (guest === undefined) return attachResult(await agent.attach("all"));
  const { uuid } = known(agent, guest);
  return attachResult(await agent.attach(new Set([uuid])));
}

/**
 * Does something to a guest that runs, when it is its turn. A refusal is an event: nobody else would hear of it.
 * @param wanted what it asks for, for the event
 */
async function onGuest<Result>(
  caller: Caller,
  nameOrUuid: string,
  operation: (session: HostSession, record: GuestRecord) => Promise<Result>,
  wanted: readonly ResourceSpec[] = [],
): Promise<Result> {
  const { agent } = caller;
  const { uuid } = known(agent, nameOrUuid);
  return await inTurn(caller, { turns: agent.changes, guest: uuid, changed: [uuid] }, async () => {
    const { session } = agent;
    const record = findLivingGuest(session.store, uuid);
    try {
      return await operation(session, record);
    } catch (error) {
      if (error instanceof LockvisorError && error.code === "locked") {
        tellRefusal(agent, record, { error, wanted });
      }
      throw error;
    }
  });
}

/** @param changed the guests whose records may be others afterwards */
async function inTurn<Result>(
  { agent, signal }: Caller,
  { turns, guest, changed }: { turns: Turns; guest: string; changed: readonly string[] | "all" },
  operation: () => Promise<Result>,
): Promise<Result> {
  try {
    return await turns.of(guest, () => {
      // Nobody would know of a lock that is granted to a client that has given up waiting.
      if (signal.aborted) throw new LockvisorError("unavailable", `guest "${guest}": the client has gone`);
      return operation();
    });
  } finally {
    agent.look(changed);
  }
}

function tellRefusal(
  agent: Agent,
  record: GuestRecord,
  { error, wanted }: { error: LockvisorError; wanted: readonly ResourceSpec[] },
): void {
  const { holder, resource } = error.details as {
    holder?: ReturnType<Agent["events"]["tell"]>["holder"];
    resource?: ResourceSpec;
  };
  const resources = (resource === undefined ? wanted : [resource]).map(eventResource);
  agent.tell({
    type: "lock-refused",
    guest: eventGuest(record),
    resources,
    holder: holder ?? null,
    message: `guest "${record.name}" was refused ${
      resources.length === 0 ? "its locks" : resourcesText(resources)
    }: ${error.message}`,
  });
}

/**
 * The record of a guest, whether it lives or not: as it was seen last, or else as it stands in the records.
 * @throws {NotThere} when there is none
 */
function known(agent: Agent, nameOrUuid: string): GuestRecord {
  const living = livingAsSeen(agent, nameOrUuid);
  if (living !== undefined) return living;
  agent.look("all");
  const seen = chooseGuest(nameOrUuid, agent.records, ({ carriers }) => lifeOf(carriers[0]));
  const record = seen ?? findGuestIfKnown(agent.session.store, nameOrUuid);
  if (record === undefined) throw unknown(nameOrUuid);
  return record;
}

/** The record of the only guest that was seen by this name or UUID, if it lives: no other record is looked at then. */
function livingAsSeen(agent: Agent, nameOrUuid: string): GuestRecord | undefined {
  const isMeant = ({ uuid, name }: GuestRecord) => uuid === nameOrUuid.toLowerCase() || name === nameOrUuid;
  const [seen, ...others] = agent.records.filter(isMeant);
  if (seen === undefined || others.length > 0) return undefined;
  agent.look([seen.uuid]);
  const record = agent.record(seen.uuid);
  return record !== undefined && isMeant(record) && lifeOf(record.carriers[0]) === "alive"
    ? record
    : undefined;
}

function unknown(nameOrUuid: string): NotThere {
  return new NotThere("data", `no guest "${nameOrUuid}" runs on this host; see: GET /v1/guests`);
}

function specsOf({ disks = [], leases = [] }: ResourcesBody): ResourceSpec[] {
  return [
    ...disks.map(({ path, access = "exclusive" }) =>
      ({ type: "disk", name: absoluteDisk(path), access }) as const
    ),
    ...leases.map(({ lockspace, key, access = "exclusive" }) => {
      const name = `${lockspace}:${key}`;
      checkLeaseName(name);
      return { type: "lease", name, access } as const;
    }),
  ];
}

/** The agent has a directory of its own, from which no client means a path. */
function absoluteDisk(path: string): string {
  if (isNetworkDisk(path) || diskPath(path).startsWith("/")) return path;
  throw new LockvisorError("data", `disk "${path}": the agent needs an absolute path, or a URI`);
}
