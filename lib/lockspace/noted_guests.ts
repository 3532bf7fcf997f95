import type { NotedGuest, OnLockFailure } from "../driver/contract.ts";
import { identity } from "../identity/key.ts";
import { leaseIdentity } from "../identity/resource.ts";
import { isPresent } from "../files/presence.ts";
import { type HolderNote, type NotedResource, notePath, readNotes } from "./holder_note.ts";
import type { Lockspace } from "./lockspace.ts";

/**
 * The guests of a host that left notes beside some keys. What a guest released has no notes any more, although the
 * notes of what it took together with that still name it.
 */
export function notedGuests(lockspace: Lockspace, keys: readonly string[], hostId: string): NotedGuest[] {
  const notes = new Map<string, HolderNote[]>();
  for (const key of keys) {
    for (const file of readNotes(lockspace, key)) {
      if (file.kind === "damaged" || file.note.host.id !== hostId) continue;
      const { uuid } = file.note.guest;
      notes.set(uuid, [...notes.get(uuid) ?? [], file.note]);
    }
  }
  return [...notes.values()].map((each) => guestOf(lockspace, each, hostId));
}

function guestOf(lockspace: Lockspace, notes: readonly HolderNote[], hostId: string): NotedGuest {
  const newest = [...notes].sort((one, other) => one.since < other.since ? 1 : -1)[0]!;
  const { uuid } = newest.guest;
  const lease = identity(leaseIdentity("guest", uuid)).key;
  const resources = new Map<string, NotedResource>();
  for (const { resources: noted } of notes) {
    for (const resource of noted) {
      if (resource.keys.includes(lease)) continue;
      resources.set(`${resource.type} ${resource.name}`, resource);
    }
  }
  const isNoted = ({ keys }: NotedResource) =>
    keys.every((key) => isPresent(notePath(lockspace, key, hostId, uuid)));
  const all = [...resources.values()];
  return {
    guest: {
      ...newest.guest,
      qmp: newest.qmp,
      onLockFailure: readAction(newest.onLockFailure),
    },
    process: newest.process,
    since: newest.since,
    leaseKeys: [lease],
    resources: all.filter(isNoted),
    withoutNotes: all.filter((resource) => !isNoted(resource)).map(({ type, name }) => ({ type, name })),
  };
}

function readAction(text: string): OnLockFailure {
  return text === "kill" || text === "ignore" ? text : "pause";
}
