import type { AccessOutcome, GrantedKey, Holder, RunningGuest } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { refusalAt } from "../lockspace/blockers.ts";
import { countGrants, type Grantee, noteOf } from "../lockspace/grant.ts";
import { writeNotes } from "../lockspace/holder_note.ts";
import { holdersByPid, patience } from "../lockspace/key_holders.ts";
import type { PlannedKey } from "../lockspace/key_plan.ts";
import { ensureKeyDirectory, keyState, readKeyState } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { type Slot, SLOTS } from "../lockspace/slot.ts";
import { observeKey } from "../lockspace/slot_evidence.ts";
import { kernelFlocks } from "../process/descriptors.ts";
import { type CarriedSlot, carriedSlots, modeHeld, requireReachOf } from "./carried_slots.ts";
import { judgeGeneration } from "./generation_check.ts";
import { steerFlock, type Steering } from "./steer.ts";

/*
 * flock(2) tells of a conversion from one mode to the other: it removes the lock that there was and then asks for the
 * new one, so that others may come in between, and one that is refused has lost the first. A key has two slots: slot a
 * is converted while slot b is held as before, and slot b while a is held as it is to be. Nobody gets both slots of a
 * key in a mode that the weaker of the two accesses excludes.
 */

/** A guest whose access changes: who it is, and what its notes are to say. */
export type ChangingGuest = Grantee & { running: RunningGuest };

/** A key that is to be held otherwise, with its slots in the guest's processes. */
interface ChangingKey {
  planned: PlannedKey;
  slots: GuestSlot[];
}

/** A slot in the descriptors that the guest has it in: one, or more where it got the key for two of its resources. */
interface GuestSlot {
  slot: Slot;
  planned: PlannedKey;
  copies: [CarriedSlot, ...CarriedSlot[]];
}

/** How long a slot that somebody only looks at is asked for again, in milliseconds. */
const PUT_BACK_MS = 10_000;

/** Between two attempts, in milliseconds: whoever looks at a slot has it for less. */
const ATTEMPT_MS = 1;

/**
 * Brings the keys of a running guest into the modes of a plan, in the descriptors in which its processes have them. All
 * or none: if others have a key that is to become exclusive, all is put back. What is to become shared can always be had.
 * @param remember told before the first slot changes
 * @throws {LockvisorError} `permission` when a process cannot be reached, `data` for a generation that cannot be trusted;
 * nothing has changed then. `locked` when somebody has a slot that was put back: `attach` is to finish it
 */
export async function changeModes(
  lockspace: Lockspace,
  guest: ChangingGuest,
  plan: readonly PlannedKey[],
  remember: () => void,
): Promise<AccessOutcome> {
  const all = plan.map((planned): ChangingKey => ({ planned, slots: slotsOfKey(lockspace, guest, planned) }));
  requireReachOf(all.flatMap(({ slots }) => slots.flatMap(({ copies }) => copies)));
  const held = all.filter((each) => isHeld(lockspace, guest, each));
  const lost = all.find((each) => each.planned.mode === "exclusive" && !held.includes(each));
  if (lost !== undefined) return { outcome: "lost", key: lost.planned.key };
  const changing = held.filter((each) => isOtherwise(guest.running.grants, each));
  const stronger = changing.filter(({ planned }) => planned.mode === "exclusive");
  for (const { planned: { key, identity } } of stronger) readKeyState(lockspace, key, identity);
  if (changing.length > 0) {
    remember();
    failpoint("change-access.noted");
  }
  const refused = await strengthen(lockspace, guest, slotBySlot(stronger));
  if (refused !== undefined) return refused;
  for (const slot of slotBySlot(changing.filter((each) => !stronger.includes(each)))) {
    await share(slot);
    failpoint("change-access.slot-weakened");
  }
  failpoint("change-access.changed");
  const keys = held.map(({ planned }) => planned.key);
  for (const key of keys) ensureKeyDirectory(lockspace, key);
  const grants = countGrants(lockspace, guest, changing.map(({ planned }) => planned));
  failpoint("change-access.counted");
  writeNotes(lockspace, keys, noteOf(guest, [...guest.running.grants.filter(isNone(grants)), ...grants]));
  failpoint("change-access.rewritten");
  return { outcome: "changed", grants };
}

function isNone(grants: readonly GrantedKey[]): (grant: GrantedKey) => boolean {
  const keys = new Set(grants.map(({ key }) => key));
  return ({ key }) => !keys.has(key);
}

function slotsOfKey(lockspace: Lockspace, { running }: ChangingGuest, planned: PlannedKey): GuestSlot[] {
  const carried = carriedSlots(lockspace, running.carriers, new Set([planned.key]));
  return SLOTS.flatMap((slot): GuestSlot[] => {
    const [first, ...others] = carried.filter((each) => each.slot === slot);
    return first === undefined ? [] : [{ slot, planned, copies: [first, ...others] }];
  });
}

/**
 * Whether the guest still has a key, so that changing its mode takes nothing that it has lost. To become weaker one slot
 * is enough: the other may be free by a change that was cut off. Where the kernel shows no locks, it is what is open.
 */
function isHeld(lockspace: Lockspace, guest: ChangingGuest, { planned, slots }: ChangingKey): boolean {
  const granted = guest.running.grants.find(({ key }) => key === planned.key);
  if (granted !== undefined && isChanged(lockspace, granted, guest)) return false;
  const shown = lockspace.evidence === "shown"
    ? slots.filter(({ copies }) => copies.some((copy) => modeHeld(copy) !== undefined))
    : slots;
  return planned.mode === "exclusive" ? shown.length === SLOTS.length : shown.length > 0;
}

/** A shared grant remembers no generation that cannot be trusted, and need not fail for it. */
function isChanged(lockspace: Lockspace, granted: GrantedKey, { process }: ChangingGuest): boolean {
  try {
    return judgeGeneration(granted, keyState(lockspace, granted.key), process) === "changed";
  } catch (error) {
    if (error instanceof LockvisorError && error.code === "data") return false;
    throw error;
  }
}

/** What is granted in another mode, or is in another one by a change that was cut off. */
function isOtherwise(grants: readonly GrantedKey[], { planned: { key, mode }, slots }: ChangingKey): boolean {
  const granted = grants.find((grant) => grant.key === key);
  return granted?.mode !== mode ||
    slots.some(({ copies }) => copies.some((copy) => modeHeld(copy) !== mode));
}

/** Slot a of all keys, then slot b of all, each in the order of the keys. */
function slotBySlot(keys: readonly ChangingKey[]): GuestSlot[] {
  return SLOTS.flatMap((slot) => keys.flatMap(({ slots }) => slots.filter((each) => each.slot === slot)));
}

/** Makes slots exclusive, or puts back what it has made so. Who has left no note yet may be gone in an instant. */
async function strengthen(
  lockspace: Lockspace,
  guest: ChangingGuest,
  slots: readonly GuestSlot[],
): Promise<Exclude<AccessOutcome, { outcome: "changed" }> | undefined> {
  const judge = patience();
  while (true) {
    const failed = await strengthenOnce(slots);
    if (failed === undefined) return undefined;
    const { at: { planned }, result } = failed;
    if (result !== "refused") return { outcome: "lost", key: planned.key };
    const { resource, holders: noted } = refusalAt(lockspace, planned, guest.host);
    const holders = othersAmong(noted, lockspace, { guest, key: planned.key });
    if (await judge(holders) === "final") return { outcome: "refused", refusal: { resource, holders } };
  }
}

async function strengthenOnce(
  slots: readonly GuestSlot[],
): Promise<{ at: GuestSlot; result: Steering } | undefined> {
  const done: GuestSlot[] = [];
  for (const at of slots) {
    const [first, ...others] = at.copies;
    // The guest's own second lock would be in its way.
    for (const { carrier, file } of others) steerFlock(carrier, file, "released");
    const result = steerFlock(first.carrier, first.file, "exclusive");
    if (result === "done") {
      done.push(at);
      failpoint("change-access.slot-strengthened");
      continue;
    }
    failpoint("change-access.refused");
    for (const slot of [at, ...done.reverse()]) {
      await share(slot);
      failpoint("change-access.put-back");
    }
    return { at, result };
  }
  return undefined;
}

/**
 * Makes a slot shared. The guest has the other slot, so nobody has this one for good: whoever tries to get both has it
 * for an instant. What is not there any more is for others to find.
 * @throws {LockvisorError} `locked` when somebody has it all the time
 */
async function share({ slot, planned: { key, resource: { type, name } }, copies }: GuestSlot): Promise<void> {
  const deadline = Date.now() + PUT_BACK_MS;
  while (true) {
    const results = copies.map(({ carrier, file }) => steerFlock(carrier, file, "shared"));
    if (!results.includes("refused")) return;
    if (Date.now() >= deadline) {
      throw new LockvisorError(
        "locked",
        `slot ${slot} of the lock on ${type} ${name} (key ${key}) is held by a process that has not the other slot; find it with lslocks, then run: lockvisor attach`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, ATTEMPT_MS));
  }
}

/** Who keeps a guest from having a key exclusively, by the notes beside it, or else by the kernel's table. */
function othersAmong(
  noted: readonly Holder[],
  lockspace: Lockspace,
  { guest, key }: { guest: ChangingGuest; key: string },
): Holder[] {
  const others = noted.filter(({ uuid, name }) => name !== null && uuid !== guest.guest.uuid);
  if (others.length > 0) return others;
  const evidence = observeKey(lockspace, key, kernelFlocks());
  if (evidence.state === "free") return [];
  const own = new Set([Deno.pid, ...guest.running.carriers.map(({ pid }) => pid)]);
  // The table names who has called flock(2): for the guest's own locks that may have been a command that has ended.
  return holdersByPid({ ...evidence, pids: evidence.pids.filter((pid) => !own.has(pid)) }, guest.host.name)
    .filter(({ alive }) => alive !== false);
}
