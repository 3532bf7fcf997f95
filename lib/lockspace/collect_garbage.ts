import { fileError, LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { removeIfPresent } from "../files/atomic_write.ts";
import { lockFileFault } from "../files/lock_file.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import { identity } from "../identity/key.ts";
import { leaseIdentity } from "../identity/resource.ts";
import { type FlockEntry, kernelFlocks } from "../process/descriptors.ts";
import { giveBackSlots, type HeldSlot } from "./acquire_keys.ts";
import { isStaleName, lifeOfHolder, readNotes } from "./holder_note.ts";
import { keyDirectory } from "./key_state.ts";
import type { Lockspace } from "./lockspace.ts";
import { keysWantedBack } from "./paused_note.ts";
import { parseSlotName, type Slot, slotPath, SLOTS, tryLockSlot } from "./slot.ts";
import { observeKey } from "./slot_evidence.ts";

/** How to tidy a lockspace. */
export interface GarbageOptions {
  /** `list`: say what would be removed, touch nothing. */
  action: "remove" | "list";
  hostId: string;
  /** Keys that living guests of this host may take again through descriptors that they kept, by their records. */
  spared: ReadonlySet<string>;
}

/** What was found. */
export interface Garbage {
  /** Paths that were removed, or would be. */
  removed: string[];
  /** How many keys somebody holds, or may want back. */
  inUse: number;
  /** One line for each key that could not be looked at or tidied. */
  problems: string[];
}

/**
 * Removes the lock files of keys that nobody holds, and the notes of holders that are gone. A key's state.json
 * stays for ever, and with it the key's directory: a paused guest or a ticket may depend on the generation, so it
 * must never start again from zero.
 *
 * Why no start can go wrong that happens at the same moment. A holder has flocks on both files that the names
 * lead to; `tryLockSlot` counts a lock only if, after it is granted, the name still leads to the very file that
 * was locked. We hold both files exclusively, Ao and Bo, from before the first removal until after the last, and
 * remove the names b, then a. So a starter,
 * - that opened Ao, and asks while we hold it: is refused. If the name a still leads to Ao, it counts as refused
 *   (for an instant and without a note, so the driver tries again); if not, it starts over with a new file;
 * - that opened Ao, and asks after we let go: is granted a lock on a file without a name. It compares (Ao stays
 *   open in its hand, so its inode cannot have been used again), finds another file or none, and starts over;
 * - that made a new file An, which it can only after the name a is gone, and so after b is gone too: finds no Bo
 *   by its name and makes Bn. A starter that has opened Bo earlier must hold a validated slot a, which we did not
 *   let anybody have; or it is one side of a migration, which asks for b alone: it is refused, or finds Bo
 *   without a name and starts over, as with Ao.
 * Nobody but us can hold a lock that counts on Ao or Bo when their names go, and two starters meet on the new
 * files. Killed at any point we leave b missing, or both: the next start makes what is missing. A second `gc` is
 * refused slot a as any starter is.
 */
export function collectGarbage(lockspace: Lockspace, options: GarbageOptions): Garbage {
  const garbage: Garbage = { removed: [], inUse: 0, problems: [] };
  const flocks = kernelFlocks();
  const found = listKeys(lockspace).flatMap(([key, slots]) =>
    unlessFaulty(garbage, () => findKey(lockspace, { key, slots, flocks })) ?? []
  );
  // Asked when all keys have been looked at: a guest writes down what it gives up before the first lock goes, so what
  // looked free then and is to be taken back is written by now.
  const wantedBack = found.filter(({ isHeld }) => isHeld).flatMap(({ key }) =>
    unlessFaulty(garbage, () => keysWantedBack(lockspace, key)) ?? []
  );
  const spared = new Set([...options.spared, ...wantedBack]);
  for (const each of found) {
    unlessFaulty(garbage, () => collectKey({ lockspace, options, spared, garbage, flocks }, each));
  }
  return garbage;
}

/** What cannot be looked at or tidied is told, and the rest goes on. */
function unlessFaulty<Result>(garbage: Garbage, step: () => Result): Result | undefined {
  try {
    return step();
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    garbage.problems.push(error.message);
    return undefined;
  }
}

interface Collection {
  lockspace: Lockspace;
  options: GarbageOptions;
  /** Keys that guests may want back, of this host and of others. */
  spared: ReadonlySet<string>;
  garbage: Garbage;
  flocks: readonly FlockEntry[];
}

/** A key with something to look at, and whether somebody has it. */
interface FoundKey {
  key: string;
  slots: readonly Slot[];
  isHeld: boolean;
}

function findKey(
  lockspace: Lockspace,
  { key, slots, flocks }: { key: string; slots: readonly Slot[]; flocks: readonly FlockEntry[] },
): FoundKey[] {
  if (slots.length === 0 && staleFiles(lockspace, key).length === 0) return [];
  return [{ key, slots, isHeld: observeKey(lockspace, key, flocks).state !== "free" }];
}

function collectKey(collection: Collection, { key, slots, isHeld }: FoundKey): void {
  const { lockspace, options, spared, garbage } = collection;
  // A held key's slots are not even tried: that would refuse others for an instant.
  if (isHeld) {
    garbage.inUse++;
    collectDeadNotes(collection, key);
    return;
  }
  // A paused guest's key may be free; its notes stay too, since they tell who had the disk meanwhile.
  const held = spared.has(key) ? "in-use" : options.action === "list" ? [] : takeBoth(lockspace, key);
  if (held === "in-use") {
    garbage.inUse++;
    return;
  }
  try {
    const removed = options.action === "list"
      ? wouldRemove(lockspace, key, slots)
      : removeHeld(lockspace, key, held, slots);
    garbage.removed.push(...removed);
  } finally {
    giveBackSlots(held);
  }
}

/** What `removeHeld` would remove; it would not touch a lock file that is not one of ours. */
function wouldRemove(lockspace: Lockspace, key: string, slots: readonly Slot[]): string[] {
  const paths = slots.map((slot) => slotPath(lockspace, key, slot));
  for (const path of paths) {
    const status = lstatIfPresent(path);
    const fault = status === undefined ? undefined : lockFileFault(status);
    if (fault !== undefined) throw new LockvisorError(fault.code, `lock file ${path} ${fault.text}`);
  }
  return [...paths, ...staleFiles(lockspace, key)];
}

/** Both slots of a key, exclusively; or none of them, when somebody has one. */
function takeBoth(lockspace: Lockspace, key: string): HeldSlot[] | "in-use" {
  const held: HeldSlot[] = [];
  let complete = false;
  try {
    for (const slot of SLOTS) {
      const result = tryLockSlot(lockspace, key, slot, "exclusive");
      if (result.outcome === "refused") return "in-use";
      held.push({ key, slot, file: result.file });
    }
    failpoint("gc.taken");
    complete = true;
    return held;
  } finally {
    if (!complete) giveBackSlots(held);
  }
}

/** Removes a key's files while both of its slots are ours. Returns those that were there before we came. */
function removeHeld(
  lockspace: Lockspace,
  key: string,
  held: readonly HeldSlot[],
  slots: readonly Slot[],
): string[] {
  const removed = staleFiles(lockspace, key);
  // Notes first: while they go, the locks keep everybody out who could write new ones.
  for (const file of removed) removeIfPresent(file);
  removeEmptyDirectory(keyDirectory(lockspace, key));
  failpoint("gc.unnoted");
  for (const { slot, file } of [...held].reverse()) {
    const path = slotPath(lockspace, key, slot);
    if (!leadsTo(path, file)) {
      throw new LockvisorError("data", `lock file ${path} was exchanged while it was locked; it stays`);
    }
    removeIfPresent(path);
    failpoint("gc.slot-removed");
  }
  return [...slots.map((slot) => slotPath(lockspace, key, slot)), ...removed];
}

/** The kernel's word, once more: the name leads to the file that we hold. */
function leadsTo(path: string, file: Deno.FsFile): boolean {
  const [named, open] = [lstatIfPresent(path), file.statSync()];
  return named !== undefined && named.dev === open.dev && named.ino === open.ino;
}

/**
 * Removes, beside a key that is in use, the notes of this host's guests that are gone. A guest has the lease on
 * itself as long as it lives, in a forked child too, and before it writes notes: while we have that lease, the
 * guest is gone, and no new one can write a note in the place of the old.
 */
function collectDeadNotes({ lockspace, options, spared, garbage, flocks }: Collection, key: string): void {
  for (const file of readNotes(lockspace, key)) {
    if (file.kind === "damaged" || lifeOfHolder(file.note, options.hostId) !== "dead") continue;
    const { key: leaseKey } = identity(leaseIdentity("guest", file.note.guest.uuid));
    if (spared.has(leaseKey) || observeKey(lockspace, leaseKey, flocks).state !== "free") continue;
    if (options.action === "list") {
      garbage.removed.push(file.file);
      continue;
    }
    const held = takeBoth(lockspace, leaseKey);
    if (held === "in-use") continue;
    try {
      const again = readNotes(lockspace, key).find((other) => other.file === file.file);
      if (again?.kind !== "note" || lifeOfHolder(again.note, options.hostId) !== "dead") continue;
      if (removeIfPresent(file.file) === "removed") garbage.removed.push(file.file);
    } finally {
      // The slots of the lease may be new, since they were collected before this key: they go again.
      for (const { slot, file } of [...held].reverse()) {
        const path = slotPath(lockspace, leaseKey, slot);
        if (leadsTo(path, file)) removeIfPresent(path);
      }
      giveBackSlots(held);
    }
  }
}

/** The keys that the directory lists, each with its slots that are there, in ascending order. */
function listKeys(lockspace: Lockspace): [key: string, slots: Slot[]][] {
  const keys = new Map<string, Slot[]>();
  try {
    for (const { name } of Deno.readDirSync(lockspace.path)) {
      const slot = parseSlotName(name);
      const key = slot?.key ?? /^([0-9a-f]{64})\.d$/.exec(name)?.[1];
      if (key === undefined) continue;
      const slots = keys.get(key) ?? [];
      if (slot !== undefined) slots.push(slot.slot);
      keys.set(key, slots);
    }
  } catch (error) {
    throw fileError(`read the directory ${lockspace.path}`, error);
  }
  for (const slots of keys.values()) slots.sort();
  return [...keys].sort(([one], [other]) => one < other ? -1 : 1);
}

/** Files beside a key that mean nothing when nobody holds it: notes, and what a killed process was writing. */
function staleFiles(lockspace: Lockspace, key: string): string[] {
  const directory = keyDirectory(lockspace, key);
  const status = lstatIfPresent(directory);
  if (status === undefined) return [];
  if (!status.isDirectory) {
    throw new LockvisorError("data", `${directory} is not a directory; find out who replaced it, remove it`);
  }
  try {
    return Array.from(Deno.readDirSync(directory), ({ name }) => name)
      .filter((name) => isStaleName(name)).sort()
      .map((name) => `${directory}/${name}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw fileError(`read the directory ${directory}`, error);
  }
}

/** Removes the directory of a key that was never held exclusively: it has no generation to keep. */
function removeEmptyDirectory(directory: string): void {
  try {
    Deno.removeSync(directory);
  } catch {
    // Not there, or not empty: it keeps the generation.
  }
}
