import type { Access } from "../access.ts";
import type { Driver, Holder, Known, LockEvidence, ResourceType } from "../driver/contract.ts";
import type { Migration } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import type { Life } from "../process/process_identity.ts";
import { lifeOf } from "../process/process_identity.ts";
import type { DiskJobKind } from "./disk_job_record.ts";
import { damagedRecord } from "./find_guest.ts";
import type { GuestRecord, GuestState } from "./guest_record.ts";
import type { GuestStore, RecordEntry } from "./guest_store.ts";
import { changingKeys, claimsOf, heldByKey } from "./lost_locks.ts";

/** A guest as `status` shows it: the record's words, the kernel's facts. */
export interface GuestView {
  uuid: string;
  name: string;
  id: string | null;
  state: GuestState;
  plugin: string;
  pid: number;
  since: string;
  resources: {
    type: ResourceType;
    name: string;
    access: Access;
    keys: string[];
    locked: Known;
    /** `access`: what it does with the resource although its lock is for reading only. */
    unprotected?: { holder: Holder | null; access?: Access };
  }[];
  /** What QEMU does to its disks by our commands, or was cut off. */
  jobs?: { kind: DiskJobKind; disk: string; target: string | null }[];
}

/**
 * A guest's view with how many of its keys, the lease on itself included, the kernel shows as held. `lost` are not
 * held and were not given up by a pause.
 */
export interface ObservedGuest {
  view: GuestView;
  locks: { held: number; unknown: number; lost: number; total: number };
  /** It is on its way to or from another host, or was when it ended. */
  migration?: Migration | undefined;
}

/** All guests that live, and what could not be read. */
export interface HostView {
  guests: ObservedGuest[];
  damaged: Extract<RecordEntry, { kind: "damaged" }>[];
  /** Why locks could not be asked for; they are unknown then. */
  fault?: LockvisorError;
}

/** Why not all is known of a host's guests, as one error. */
export function faultOfHost({ fault, damaged: [first, ...others] }: HostView): LockvisorError | undefined {
  if (fault !== undefined || first === undefined) return fault;
  const error = damagedRecord(first);
  if (others.length === 0) return error;
  return new LockvisorError("data", `${error.message} (and ${others.length} more)`);
}

/** What to do with a record: keep it, or drop it since neither its process lives nor its own lease is held. */
export function verdictOnRecord(life: Life, leaseHeld: Known): "keep" | "drop" {
  return life === "dead" && leaseHeld === false ? "drop" : "keep";
}

/**
 * Looks at every guest of this host. Records of guests that are gone are taken away on the way. Where a driver cannot
 * be asked, as in a lockspace that is cut off, guests whose process lives are told with locks that are not known.
 * @param entries all records
 * @param driverOf the driver of a plugin's name, or undefined for one that is not to be had
 */
export function observeHost(
  store: GuestStore,
  entries: readonly RecordEntry[],
  driverOf: (plugin: string) => Driver | undefined,
): HostView {
  const damaged: HostView["damaged"] = [];
  const kept: { record: GuestRecord; state: GuestState }[] = [];
  const faults: LockvisorError[] = [];
  for (const entry of entries) {
    if (entry.kind === "damaged") {
      damaged.push(entry);
      continue;
    }
    const { record } = entry;
    const life = lifeOf(record.carriers[0]);
    // Only a dead process asks for a look at the lease: a guest that forked lives on in its child.
    const leaseHeld = life === "dead" ? leaseHeldBy(record, driverOf, faults) : null;
    if (verdictOnRecord(life, leaseHeld) === "drop") store.remove(record);
    else kept.push({ record, state: shownState(record, life, leaseHeld) });
  }
  const evidence = evidenceOf(kept.map(({ record }) => record), driverOf, faults);
  const guests = kept.map(({ record, state }): ObservedGuest => {
    const shown = evidence.get(record)!;
    const locks = countLocks(record, shown);
    // A guest that has ended has lost nothing; its record may still lead to what a migration has left.
    const settled = state === "stopped" ? { ...locks, lost: 0 } : locks;
    return { view: viewOf(record, shown, state), locks: settled, migration: record.migration };
  });
  return { guests, damaged, ...(faults[0] === undefined ? {} : { fault: faults[0] }) };
}

/** Whether the lease of a guest whose process is dead is held by what may be the guest itself. */
function leaseHeldBy(
  { plugin, leaseKeys, migration }: GuestRecord,
  driverOf: (plugin: string) => Driver | undefined,
  faults: LockvisorError[],
): Known {
  // Whoever has the lease may be the other side; and what this side has left beside its keys is still to be taken away.
  if (migration !== undefined) return null;
  return answerOf(() => driverOf(plugin)?.isHeld(leaseKeys) ?? null, faults)?.answer ?? null;
}

/** What the kernel shows of each guest's locks: each driver is asked once, for all of its guests. */
function evidenceOf(
  records: readonly GuestRecord[],
  driverOf: (plugin: string) => Driver | undefined,
  faults: LockvisorError[],
): Map<GuestRecord, LockEvidence[]> {
  const found = new Map<GuestRecord, LockEvidence[]>();
  for (const [plugin, group] of Map.groupBy(records, ({ plugin }) => plugin)) {
    const answers = answerOf(() => driverOf(plugin)?.evidence(group.flatMap(claimsOf)), faults)?.answer;
    let at = 0;
    for (const record of group) {
      const own = answers?.slice(at, at += record.carriers.length).flat() ?? notKnown(record);
      found.set(record, own);
    }
  }
  return found;
}

function notKnown({ carriers }: GuestRecord): LockEvidence[] {
  return carriers.flatMap(({ locks }) => locks.map(({ key }) => ({ key, held: null })));
}

/** What a driver answers; undefined, with the fault noted, when it cannot. */
function answerOf<T>(ask: () => T, faults: LockvisorError[]): { answer: T } | undefined {
  try {
    return { answer: ask() };
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    faults.push(error);
    return undefined;
  }
}

/**
 * A record says `starting` until somebody looks: once the process is another program, the guest runs. One whose process
 * has ended is never said to run, unless a child that it forked is seen to have its lease.
 */
function shownState(record: GuestRecord, life: Life, leaseHeld: Known): GuestState {
  if (life === "dead" && leaseHeld !== true) return "stopped";
  if (record.state !== "starting") return record.state;
  return isLockvisor(record.carriers[0].pid) ? "starting" : "running";
}

/** Whether a process is this program, and no guest's yet. */
export function isLockvisor(pid: number): boolean {
  try {
    return Deno.readLinkSync(`/proc/${pid}/exe`) === Deno.execPath();
  } catch {
    return false;
  }
}

/** The view of a guest, as a function of its record and of what the kernel shows of its keys. */
export function viewOf(record: GuestRecord, evidence: readonly LockEvidence[], state: GuestState): GuestView {
  const held = heldByKey(evidence, changingKeys(record.resources));
  return {
    uuid: record.uuid,
    name: record.name,
    id: record.id,
    state,
    plugin: record.plugin,
    pid: record.carriers[0].pid,
    since: record.since,
    resources: record.resources.map(({ type, name, access, keys, unprotected, written }) => ({
      type,
      name,
      access,
      keys,
      locked: lockedOf(keys.map((key) => held.has(key) ? held.get(key)! : false)),
      ...(unprotected === undefined ? {} : { unprotected: { holder: unprotected.holder } }),
      ...(written === undefined ? {} : { unprotected: { holder: written.holder, access: written.access } }),
    })),
    ...(record.diskJobs === undefined ? {} : {
      jobs: record.diskJobs.map(({ kind, disk, target }) => ({
        kind,
        disk: disk.name,
        target: target?.path ?? null,
      })),
    }),
  };
}

/** Locked when every key is; not, when one is not or there is none; otherwise unknown. */
function lockedOf(held: readonly Known[]): Known {
  if (held.length === 0 || held.includes(false)) return false;
  return held.includes(null) ? null : true;
}

function countLocks(
  { givenUp, resources }: GuestRecord,
  evidence: readonly LockEvidence[],
): ObservedGuest["locks"] {
  const excused = changingKeys(resources);
  for (const { key } of givenUp) excused.add(key);
  return {
    held: evidence.filter(({ held }) => held === true).length,
    unknown: evidence.filter(({ held }) => held === null).length,
    lost: evidence.filter(({ key, held }) => held === false && !excused.has(key)).length,
    total: evidence.length,
  };
}
