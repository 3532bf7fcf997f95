import { failpoint } from "../failpoint.ts";
import type { CarriedLock, GrantedKey, Guest, ResolvedResource } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { isPresent } from "../files/presence.ts";
import { isSameProcess, lifeOf, type ProcessIdentity } from "../process/process_identity.ts";
import { descriptorsOf, giveBackSlots, type HeldSlot } from "./acquire_keys.ts";
import {
  type HolderNote,
  type NotedResource,
  notePath,
  readNoteOf,
  removeNote,
  removeStaleNotes,
  writeNotes,
} from "./holder_note.ts";
import type { PlannedKey } from "./key_plan.ts";
import { ensureKeyDirectory, keyState, readKeyState, writeKeyState } from "./key_state.ts";
import type { Lockspace } from "./lockspace.ts";

/** Who gets locks: the guest, the process that is to hold them, and what they are for. */
export interface Grantee {
  guest: Guest;
  process: ProcessIdentity;
  host: { id: string; name: string };
  plugin: string;
  resources: readonly NotedResource[];
}

/** A resource as notes name it. */
export function noted({ type, name, access, identities }: ResolvedResource): NotedResource {
  return { type, name, access, keys: identities.map(({ key }) => key) };
}

/** Locks that were granted, still in our own process. */
export interface Grant {
  locks: CarriedLock[];
  grants: GrantedKey[];
  /** The numbers of the descriptors, in the order of the slots. */
  descriptors: number[];
  /** Closes our copies; whoever has inherited them holds the locks. */
  letGo(): void;
  /** Takes the notes away and closes our copies. */
  giveBack(): void;
}

/** All keys are ours: counts the grants, leaves the notes, finds the descriptors. Gives all back if that fails. */
export function settleGrant(
  lockspace: Lockspace,
  grantee: Grantee,
  plan: readonly PlannedKey[],
  slots: readonly HeldSlot[],
): Grant {
  const keys = plan.map(({ key }) => key);
  let noted = false;
  const giveBack = () => {
    try {
      if (noted) { for (const key of keys) removeNote(lockspace, key, grantee.host.id, grantee.guest.uuid); }
    } finally {
      giveBackSlots(slots);
    }
  };
  try {
    failpoint("grant.locked");
    refuseSecondSelf(lockspace, grantee, keys);
    for (const key of keys) ensureKeyDirectory(lockspace, key);
    const grants = countGrants(lockspace, grantee, plan);
    noted = true;
    failpoint("grant.counted");
    writeNotes(lockspace, keys, noteOf(grantee, grants));
    failpoint("grant.noted");
    const descriptors = descriptorsOf(lockspace, slots);
    return {
      locks: carriedLocks(slots, descriptors),
      grants,
      descriptors,
      letGo: () => giveBackSlots(slots),
      giveBack,
    };
  } catch (error) {
    giveBack();
    throw error;
  }
}

/**
 * A guest that lives and has lost the lease on itself must not be started a second time: that start would take the
 * notes of what the guest still has with it.
 * @throws {LockvisorError} `locked`
 */
function refuseSecondSelf(
  lockspace: Lockspace,
  { guest, host, process }: Grantee,
  keys: readonly string[],
): void {
  const own = { hostId: host.id, uuid: guest.uuid };
  for (const key of keys) {
    if (!isPresent(notePath(lockspace, key, host.id, guest.uuid))) continue;
    const note = readNoteOf(lockspace, key, own);
    if (note === undefined || isSameProcess(note.process, process) || lifeOf(note.process) !== "alive") {
      continue;
    }
    throw new LockvisorError(
      "locked",
      `guest "${note.guest.name}" (pid ${note.process.pid}, since ${note.since}) is running already, and has lost a lock; run: lockvisor attach`,
      {
        details: {
          holder: { uuid: guest.uuid, name: note.guest.name, pid: note.process.pid, since: note.since },
        },
      },
    );
  }
}

/** The note of a guest about what it got, and how. */
export function noteOf(
  { guest, process, host, plugin, resources }: Grantee,
  grants: readonly GrantedKey[],
): HolderNote {
  return {
    guest: { uuid: guest.uuid, name: guest.name, id: guest.id },
    host,
    process: onlyIdentity(process),
    since: now(),
    resources: [...resources],
    grants,
    plugin,
    qmp: guest.qmp,
    onLockFailure: guest.onLockFailure,
  };
}

/** A process without what else is known of it. */
export function onlyIdentity({ pid, startTime, bootId, pidNamespace }: ProcessIdentity): ProcessIdentity {
  return { pid, startTime, bootId, pidNamespace };
}

function now(): string {
  return `${new Date().toISOString().slice(0, 19)}Z`;
}

/**
 * Adds one to the generation of every key that was granted exclusively. All states are read before one is written.
 * @returns how each key is granted now
 */
export function countGrants(
  lockspace: Lockspace,
  { guest: { uuid, name }, host, process }: Pick<Grantee, "guest" | "host" | "process">,
  plan: readonly Pick<PlannedKey, "key" | "identity" | "mode">[],
): GrantedKey[] {
  const lastGrant = { guest: { uuid, name }, host, process: onlyIdentity(process), since: now() };
  const states = plan.map(({ key, identity, mode }) =>
    // A shared grant changes nothing, so it need not fail for a generation that cannot be trusted.
    mode === "exclusive" ? readKeyState(lockspace, key, identity) : generationIfKnown(lockspace, key)
  );
  return plan.map(({ key, identity, mode }, index): GrantedKey => {
    const earlier = states[index];
    if (mode === "shared") return { key, mode, generation: earlier?.generation ?? 0 };
    const generation = (earlier?.generation ?? 0) + 1;
    const state = { identity, generation, lastGrant };
    writeKeyState(lockspace, key, state, earlier === undefined ? "first" : "later");
    failpoint("grant.key-counted");
    removeStaleNotes(lockspace, key, process);
    return { key, mode, generation };
  });
}

function generationIfKnown(lockspace: Lockspace, key: string): { generation: number } | undefined {
  try {
    return keyState(lockspace, key);
  } catch (error) {
    if (error instanceof LockvisorError && error.code === "data") return undefined;
    throw error;
  }
}

function carriedLocks(slots: readonly HeldSlot[], numbers: readonly number[]): CarriedLock[] {
  const locks = new Map<string, CarriedLock>();
  slots.forEach(({ key, slot }, index) => {
    const lock = locks.get(key) ?? { key, slots: {} };
    lock.slots[slot] = numbers[index]!;
    locks.set(key, lock);
  });
  return [...locks.values()];
}
