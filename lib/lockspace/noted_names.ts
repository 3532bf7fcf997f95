import { fileError } from "../errors.ts";
import { identity } from "../identity/key.ts";
import { leaseIdentity } from "../identity/resource.ts";
import { readNotes } from "./holder_note.ts";
import type { Lockspace } from "./lockspace.ts";

/**
 * The UUIDs of the guests that had a name on this host when they last started, the newest first: by the note that a
 * guest leaves beside the lease on itself, which stays after its end until `gc` takes it away. Notes beside disks are
 * not asked: they may be of an earlier life, in which the guest had another name. Looks at every key of the lockspace.
 * @throws {LockvisorError} when the lockspace cannot be read
 */
export function uuidsNotedAs(lockspace: Lockspace, name: string, hostId: string): string[] {
  const named = directoriesOf(lockspace).flatMap(({ key, files }) => {
    const uuids = files.flatMap((file) => uuidOfNote(file, hostId) ?? []);
    const isOwnLease = (uuid: string) => identity(leaseIdentity("guest", uuid)).key === key;
    if (!uuids.some(isOwnLease)) return [];
    return readNotes(lockspace, key).flatMap((read) => {
      if (read.kind === "damaged") return [];
      const { guest, host, since } = read.note;
      return host.id === hostId && guest.name === name && isOwnLease(guest.uuid)
        ? [{ uuid: guest.uuid, since }]
        : [];
    });
  });
  return named.sort((one, other) => one.since < other.since ? 1 : -1).map(({ uuid }) => uuid);
}

function directoriesOf({ path }: Lockspace): { key: string; files: string[] }[] {
  const namesIn = (directory: string): string[] => {
    try {
      return Array.from(Deno.readDirSync(directory), ({ name }) => name);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return [];
      throw fileError(`read the directory ${directory}`, error);
    }
  };
  return namesIn(path).flatMap((name) => {
    const key = /^([0-9a-f]{64})\.d$/.exec(name)?.[1];
    return key === undefined ? [] : [{ key, files: namesIn(`${path}/${name}`) }];
  });
}

/** The guest of a note of this host, by the file's name: `<host-id>.<guest-uuid>.json`. */
function uuidOfNote(file: string, hostId: string): string | undefined {
  if (!file.startsWith(`${hostId}.`)) return undefined;
  return /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.json$/.exec(file.slice(hostId.length + 1))?.[1];
}
