import type { CarriedLock, Carrier, GrantedKey, RegainOutcome, RunningGuest } from "../driver/contract.ts";
import type { LockMode } from "../access.ts";
import { descriptorsOf, giveBackSlots, type HeldSlot } from "../lockspace/acquire_keys.ts";
import { type Grantee, noteOf } from "../lockspace/grant.ts";
import { writeNotes } from "../lockspace/holder_note.ts";
import { ensureKeyDirectory, keyState } from "../lockspace/key_state.ts";
import { blockersOf, holdersOfKey } from "../lockspace/key_holders.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { checkOneByOne, type OpenSlot, slotsOpenIn } from "../lockspace/open_slots.ts";
import { slotPath, SLOTS, tryLockSlot } from "../lockspace/slot.ts";
import { observeKey } from "../lockspace/slot_evidence.ts";
import { hiddenDescriptors, kernelFlocks } from "../process/descriptors.ts";
import { sendSignal } from "../process/ending.ts";
import { lifeOf, type ProcessIdentity } from "../process/process_identity.ts";
import { carriersAfter, locksIn, type PlacedSlot } from "./carriers_after.ts";
import { countAgain } from "./count_again.ts";
import { judgeGeneration, lastHolder } from "./generation_check.ts";
import { steerFlock } from "./steer.ts";

/** A guest that has lost locks: who it is, and how it was granted what it lost, in ascending order of the keys. */
export type BereftGuest = Grantee & { running: RunningGuest; lost: readonly GrantedKey[] };

/** Moves locks that are open here to the guest. */
export type Carry = (locks: CarriedLock[], descriptors: readonly number[]) => Promise<Carrier>;

/** Where a slot of a lost key is locked while the others are tried. */
type TakenSlot =
  /** In one of the guest's carriers, as before or again. */
  | { where: "kept" | "inside"; placed: PlacedSlot }
  /** In one of the guest's carriers, where it was locked in the other mode before. */
  | { where: "converted"; placed: PlacedSlot; from: LockMode }
  | { where: "here"; held: HeldSlot };

/**
 * Takes lost keys again, all or none: each slot in the descriptor in which a carrier of the guest has it open still,
 * or else in one of our own that is moved to the guest. The generations are compared when all are locked: from then on
 * nobody can change them. If one has grown, somebody else has had the disk, and all are given up again.
 * @throws {LockvisorError} `permission` when a carrier cannot be looked into or reached; nothing was taken then
 */
export async function regainKeys(
  lockspace: Lockspace,
  guest: BereftGuest,
  { carry, changes }: { carry: Carry; changes: "refuse" | "accept" },
): Promise<RegainOutcome> {
  const taken: TakenSlot[] = [];
  let isDone = false;
  try {
    const refused = takeSlots(lockspace, guest, taken);
    if (refused !== undefined) return refusal(lockspace, guest, refused);
    const judged = guest.lost.map((remembered) => {
      const state = keyState(lockspace, remembered.key);
      return { remembered, state, verdict: judgeGeneration(remembered, state, guest.process) };
    });
    const changed = judged.find(({ verdict }) => verdict === "changed");
    if (changed !== undefined && changes === "refuse") {
      const { remembered: { key }, state } = changed;
      const had = lastHolder(lockspace, key, { state, self: guest.guest.uuid });
      return { outcome: "changed", key, generation: state?.generation ?? 0, had };
    }
    for (const { key } of guest.lost) ensureKeyDirectory(lockspace, key);
    const grants = countAgain(lockspace, guest, judged);
    writeNotes(lockspace, guest.lost.map(({ key }) => key), noteOf(guest, grants));
    const carriers = await settle(lockspace, guest, taken, carry);
    isDone = true;
    return { outcome: "regained", carriers, grants };
  } finally {
    const here = taken.flatMap((slot) => slot.where === "here" ? [slot.held] : []);
    if (!isDone) letGoInside(lockspace, taken);
    giveBackSlots(here); // when all is done, the guest has copies
  }
}

/** Takes the slots in their order. @returns the key that somebody else has */
function takeSlots(lockspace: Lockspace, guest: BereftGuest, taken: TakenSlot[]): GrantedKey | undefined {
  const carriers = guest.running.carriers.filter((carrier) => lifeOf(carrier) === "alive");
  const open = new Map<number, OpenSlot[]>();
  const leadsTo = checkOneByOne(lockspace);
  for (const pid of new Set([guest.process.pid, ...carriers.map((carrier) => carrier.pid)])) {
    const slots = slotsOpenIn(lockspace, pid, leadsTo);
    if (slots === "hidden") throw hiddenDescriptors(pid);
    open.set(pid, slots);
  }
  for (const granted of guest.lost) {
    for (const slot of SLOTS) {
      const inside = [...open].flatMap(([pid, slots]) =>
        slots.filter((each) => each.key === granted.key && each.slot === slot)
          .map((each) => ({ ...each, process: processOf(pid, guest, carriers) }))
      );
      const result = inside.find(({ mode }) => mode === granted.mode) ??
        inside.find((each) => each.mode === undefined && lockInside(lockspace, each, granted.mode));
      if (result !== undefined) {
        taken.push({ where: result.locked ? "kept" : "inside", placed: result });
        continue;
      }
      const other = inside.find(({ mode }) => mode !== undefined);
      if (other !== undefined) {
        const from = other.mode!;
        if (!convertInside(lockspace, other, { from, to: granted.mode })) return granted;
        taken.push({ where: "converted", placed: other, from });
        continue;
      }
      const own = tryLockSlot(lockspace, granted.key, slot, granted.mode);
      if (own.outcome === "refused") return granted;
      taken.push({ where: "here", held: { key: granted.key, slot, file: own.file } });
    }
  }
  return undefined;
}

function processOf(pid: number, { process }: BereftGuest, carriers: readonly Carrier[]): ProcessIdentity {
  return pid === process.pid ? process : carriers.find((carrier) => carrier.pid === pid)!;
}

/** A descriptor of a filesystem whose client was started anew may fail for ever: then a new one is tried. */
function lockInside(
  lockspace: Lockspace,
  { key, slot, descriptor, process }: PlacedSlot,
  mode: LockMode,
): boolean {
  return steerFlock(process, { path: slotPath(lockspace, key, slot), descriptor }, mode) === "done";
}

/** Who converts a flock(2) to a mode that others stand in the way of has lost the mode that it had. */
function convertInside(
  lockspace: Lockspace,
  placed: PlacedSlot,
  { from, to }: { from: LockMode; to: LockMode },
): boolean {
  if (lockInside(lockspace, placed, to)) return true;
  lockInside(lockspace, placed, from);
  return false;
}

/** Never what the guest held all the time. */
function letGoInside(lockspace: Lockspace, taken: readonly TakenSlot[]): void {
  for (const slot of [...taken].reverse()) {
    if (slot.where === "kept" || slot.where === "here") continue;
    const { placed: { key, slot: name, descriptor, process } } = slot;
    const before = slot.where === "converted" ? slot.from : "released";
    steerFlock(process, { path: slotPath(lockspace, key, name), descriptor }, before);
  }
}

function refusal(lockspace: Lockspace, guest: BereftGuest, { key, mode }: GrantedKey): RegainOutcome {
  const { holders } = holdersOfKey(lockspace, key, observeKey(lockspace, key, kernelFlocks()), guest.host);
  const others = holders.filter(({ uuid }) => uuid !== guest.guest.uuid);
  return { outcome: "refused", key, holders: blockersOf(others, mode) };
}

/** Moves what was locked here to the guest, and tells who carries what then. A holder with nothing left ends. */
async function settle(
  lockspace: Lockspace,
  guest: BereftGuest,
  taken: readonly TakenSlot[],
  carry: Carry,
): Promise<Carrier[]> {
  const here = taken.flatMap((slot) => slot.where === "here" ? [slot.held] : []);
  const added: Carrier[] = [];
  if (here.length > 0) {
    const numbers = descriptorsOf(lockspace, here);
    added.push(
      await carry(locksIn(here.map((slot, index) => ({ ...slot, descriptor: numbers[index]! }))), numbers),
    );
  }
  const placed = taken.flatMap((slot) => slot.where === "here" ? [] : [slot.placed]);
  const lost = new Set(guest.lost.map(({ key }) => key));
  const { carriers, emptied } = carriersAfter(guest.running.carriers, { lost, placed, added });
  for (const holder of emptied) sendSignal(holder, "SIGTERM");
  return carriers;
}
