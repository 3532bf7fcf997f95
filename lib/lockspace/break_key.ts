import type { Holding } from "../driver/contract.ts";
import { fileError, LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { removeIfPresent } from "../files/atomic_write.ts";
import { kernelFlocks } from "../process/descriptors.ts";
import type { KeyFacts, NotedHolder } from "./break_plan.ts";
import { lifeOfHolder, readNotes, removeNote } from "./holder_note.ts";
import { keyState, writeKeyState } from "./key_state.ts";
import type { Lockspace } from "./lockspace.ts";
import { slotPath, SLOTS, tryFlock } from "./slot.ts";
import { observeKey } from "./slot_evidence.ts";

/**
 * What the kernel and the notes tell of a key.
 * @param holdings what processes of this host hold
 * @throws {LockvisorError} `data` when the key's generation cannot be read
 */
export function keyFacts(
  lockspace: Lockspace,
  key: string,
  { hostId, holdings }: { hostId: string; holdings: readonly Holding[] },
): KeyFacts {
  const evidence = observeKey(lockspace, key, kernelFlocks());
  if (evidence.state === "free") return { state: "free", pids: [], holders: [], damaged: [] };
  keyState(lockspace, key); // a damaged one is refused before anything is written
  const files = readNotes(lockspace, key);
  const holders = files.flatMap((file) => {
    if (file.kind === "damaged") return [];
    const { guest, host, process, since } = file.note;
    return [{ guest, host, pid: process.pid, since, life: lifeOfHolder(file.note, hostId) }];
  });
  const own = holdings.filter(({ locks }) => locks.some((lock) => lock.key === key));
  // The kernel's table names whoever called flock(2), dead or alive; the descriptors tell who has the lock now.
  const pids = own.length > 0 ? own.map(({ process }) => process.pid) : evidence.pids;
  const damaged = files.flatMap((file) => file.kind === "damaged" ? [file.file] : []);
  return { state: evidence.state, pids, holders, damaged };
}

/** The keys beside which a guest, by name or UUID, has left notes, from whatever host. */
export function keysNotedFor(lockspace: Lockspace, nameOrUuid: string): string[] {
  const uuid = nameOrUuid.toLowerCase();
  const keys = Array.from(
    Deno.readDirSync(lockspace.path),
    ({ name }) => /^([0-9a-f]{64})\.d$/.exec(name)?.[1],
  );
  return keys.filter((key) => key !== undefined).sort().filter((key) =>
    readNotes(lockspace, key).some((file) =>
      file.kind === "note" && (file.note.guest.uuid === uuid || file.note.guest.name === nameOrUuid)
    )
  );
}

/**
 * Counts a key's generation on, puts new lock files in the place of its old ones, and takes the notes of the holders
 * away. A storage server may keep the lock of a host that died: that stays on the old files, which no name leads to
 * any more. Until all is done the new files are locked, so that no start sees a half-broken key.
 */
export function breakKey(lockspace: Lockspace, key: string, holders: readonly NotedHolder[]): void {
  const state = keyState(lockspace, key);
  const made: Deno.FsFile[] = [];
  try {
    // Before the files: once they are new the key is free, and nobody would come back to count. A key that was never
    // held exclusively has no generation.
    if (state !== undefined) {
      const { identity, generation } = state;
      writeKeyState(lockspace, key, { identity, generation: generation + 1 }, "later"); // granted to nobody
    }
    failpoint("break.counted");
    for (const slot of SLOTS) {
      made.push(replaceFile(lockspace, slotPath(lockspace, key, slot)));
      failpoint("break.file-replaced");
    }
    failpoint("break.replaced");
    for (const { host, guest } of holders) {
      for (const side of ["own", "incoming"] as const) removeNote(lockspace, key, host.id, guest.uuid, side);
    }
  } finally {
    for (const file of made.reverse()) file.close();
  }
}

function replaceFile(lockspace: Lockspace, path: string): Deno.FsFile {
  const temporary = `${path}.${Deno.pid}.tmp`;
  let file: Deno.FsFile | undefined;
  try {
    removeIfPresent(temporary); // of a break that was killed, by a process with our pid
    file = Deno.openSync(temporary, { read: true, write: true, createNew: true, mode: 0o600 });
    if (!tryFlock(file, lockspace, "exclusive")) {
      throw new LockvisorError("locked", `the new lock file ${temporary} is locked already; who works here?`);
    }
    failpoint("break.file-made");
    Deno.renameSync(temporary, path);
    return file;
  } catch (error) {
    file?.close();
    removeIfPresent(temporary);
    throw error instanceof LockvisorError ? error : fileError(`replace the lock file ${path}`, error);
  }
}
