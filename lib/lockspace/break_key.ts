import { fileError, LockvisorError } from "../errors.ts";
import { removeIfPresent } from "../files/atomic_write.ts";
import { readRecordFile } from "../files/record_file.ts";
import { JsonFields } from "../files/json_shape.ts";
import { kernelFlocks } from "../process/descriptors.ts";
import type { NotedHolder } from "./break_plan.ts";
import { lifeOfHolder, notePath, readNotes } from "./holder_note.ts";
import { keyDirectory, writeKeyState } from "./key_state.ts";
import type { Lockspace } from "./lockspace.ts";
import { slotPath, SLOTS, tryFlock } from "./slot.ts";
import { observeKey, type SlotEvidence } from "./slot_evidence.ts";

/** What is known of a key that is to be broken. */
export function keyForBreak(
  lockspace: Lockspace,
  key: string,
  hostId: string,
): { evidence: SlotEvidence; holders: NotedHolder[] } {
  const evidence = observeKey(lockspace, key, kernelFlocks());
  const holders = readNotes(lockspace, key).flatMap((file) => {
    if (file.kind === "damaged") return [];
    const { guest, host, process, since } = file.note;
    return [{ guest, host, pid: process.pid, since, life: lifeOfHolder(file.note, hostId) }];
  });
  return { evidence, holders };
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
 * Puts new lock files in the place of a key's old ones, counts its generation on, and takes the notes of the holders
 * away. A storage server may keep the lock of a host that died: that stays on the old files, which no name leads to
 * any more. Until all is done the new files are locked, so that no start sees a half-broken key.
 */
export function breakKey(lockspace: Lockspace, key: string, holders: readonly NotedHolder[]): void {
  const made: Deno.FsFile[] = [];
  try {
    for (const slot of SLOTS) made.push(replaceFile(lockspace, slotPath(lockspace, key, slot)));
    countOn(lockspace, key);
    for (const { host, guest } of holders) removeIfPresent(notePath(lockspace, key, host.id, guest.uuid));
  } finally {
    for (const file of made.reverse()) file.close();
  }
}

function replaceFile(lockspace: Lockspace, path: string): Deno.FsFile {
  const temporary = `${path}.${Deno.pid}.tmp`;
  let file: Deno.FsFile | undefined;
  try {
    file = Deno.openSync(temporary, { read: true, write: true, createNew: true, mode: 0o600 });
    if (!tryFlock(file, lockspace, "exclusive")) {
      throw new LockvisorError("locked", `the new lock file ${temporary} is locked already; who works here?`);
    }
    Deno.renameSync(temporary, path);
    return file;
  } catch (error) {
    file?.close();
    removeIfPresent(temporary);
    throw error instanceof LockvisorError ? error : fileError(`replace the lock file ${path}`, error);
  }
}

/** A key that was never held exclusively has no generation to count. */
function countOn(lockspace: Lockspace, key: string): void {
  const path = `${keyDirectory(lockspace, key)}/state.json`;
  const content = readRecordFile(path);
  if (content.kind === "absent") return;
  if (content.kind === "damaged") {
    throw new LockvisorError("data", `generation file ${path} cannot be trusted: ${content.reason}`);
  }
  const fields = new JsonFields(content.value);
  const state = { identity: fields.text("identity"), generation: fields.count("generation") + 1 };
  writeKeyState(lockspace, key, state, "later");
}
