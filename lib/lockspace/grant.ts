import { failpoint } from "../failpoint.ts";
import type { CarriedLock, Guest, ResolvedResource } from "../driver/contract.ts";
import { ownDescriptorNumbers } from "../process/descriptor_numbers.ts";
import type { ProcessIdentity } from "../process/process_identity.ts";
import { giveBackSlots, type HeldSlot } from "./acquire_keys.ts";
import {
  type HolderNote,
  type NotedResource,
  removeNote,
  removeStaleNotes,
  writeNotes,
} from "./holder_note.ts";
import type { PlannedKey } from "./key_plan.ts";
import { ensureKeyDirectory, readKeyState, writeKeyState } from "./key_state.ts";
import type { Lockspace } from "./lockspace.ts";
import { slotPath } from "./slot.ts";

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
    for (const key of keys) ensureKeyDirectory(lockspace, key);
    countGrants(lockspace, plan);
    noted = true;
    failpoint("grant.counted");
    writeNotes(lockspace, keys, noteOf(grantee));
    failpoint("grant.noted");
    const descriptors = ownDescriptorNumbers(slots.map(({ key, slot }) => slotPath(lockspace, key, slot)));
    return {
      locks: carriedLocks(slots, descriptors),
      descriptors,
      letGo: () => giveBackSlots(slots),
      giveBack,
    };
  } catch (error) {
    giveBack();
    throw error;
  }
}

/** The note of a guest about what it got. */
export function noteOf({ guest, process, host, plugin, resources }: Grantee): HolderNote {
  return {
    guest: { uuid: guest.uuid, name: guest.name, id: guest.id },
    host,
    process: {
      pid: process.pid,
      startTime: process.startTime,
      bootId: process.bootId,
      pidNamespace: process.pidNamespace,
    },
    since: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
    resources: [...resources],
    plugin,
    qmp: guest.qmp,
    onLockFailure: guest.onLockFailure,
  };
}

/** Adds one to the generation of every key that was granted exclusively. All states are read before one is written. */
export function countGrants(
  lockspace: Lockspace,
  plan: readonly Pick<PlannedKey, "key" | "identity" | "mode">[],
): void {
  const exclusive = plan.filter(({ mode }) => mode === "exclusive");
  const states = exclusive.map(({ key, identity }) => readKeyState(lockspace, key, identity));
  exclusive.forEach(({ key, identity }, index) => {
    const earlier = states[index];
    const state = { identity, generation: (earlier?.generation ?? 0) + 1 };
    writeKeyState(lockspace, key, state, earlier === undefined ? "first" : "later");
    failpoint("grant.key-counted");
    removeStaleNotes(lockspace, key);
  });
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
