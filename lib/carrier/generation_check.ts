import type { GrantedKey, Holder } from "../driver/contract.ts";
import { holderOfNote } from "../lockspace/key_holders.ts";
import { readNotes } from "../lockspace/holder_note.ts";
import type { KeyState } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import type { ProcessIdentity } from "../process/process_identity.ts";

/**
 * What a key's generation tells of the time since a guest was granted it. `counted`: nobody had the key exclusively,
 * and a command that was cut off has counted the guest's new grant already.
 */
export type GenerationVerdict = "unchanged" | "counted" | "changed";

/**
 * Compares the generation of a key with the one that a guest remembers. One more that was granted to the guest's very
 * process is its own: each exclusive grant counts one, so nobody else can have had it in between.
 */
export function judgeGeneration(
  { generation }: Pick<GrantedKey, "generation">,
  present: KeyState | undefined,
  process: Pick<ProcessIdentity, "pid" | "startTime" | "bootId">,
): GenerationVerdict {
  if ((present?.generation ?? 0) === generation) return "unchanged";
  const last = present?.lastGrant?.process;
  const isOwn = last !== undefined && last.pid === process.pid && last.startTime === process.startTime &&
    last.bootId === process.bootId;
  return present?.generation === generation + 1 && isOwn ? "counted" : "changed";
}

/** Who had a key last, by its generation's file, or else by the newest note beside it; null when nothing tells. */
export function lastHolder(
  lockspace: Lockspace,
  key: string,
  { state, self }: { state: KeyState | undefined; self: string },
): Holder | null {
  const last = state?.lastGrant;
  if (last !== undefined) {
    const { guest, host, process, since } = last;
    return { ...guest, pid: process.pid, host: host.name, access: "exclusive", since, alive: null };
  }
  const notes = readNotes(lockspace, key).flatMap((file) =>
    file.kind === "note" && file.note.guest.uuid !== self ? [file.note] : []
  );
  const newest = notes.sort((one, other) => one.since < other.since ? 1 : -1)[0];
  return newest === undefined ? null : holderOfNote(newest, key, "unknown");
}
