import type { LockMode } from "../access.ts";
import type { Slot } from "./slot.ts";

/** A key of a guest that moves, and how it is locked on both sides. */
export interface MovingKey {
  key: string;
  mode: LockMode;
}

/**
 * One step of a migration in the lockspace. After each the program may be killed; what is there then still excludes
 * everybody else, and the command that was cut off can be run again.
 */
export type LockspaceStep =
  /** Asks for a slot without waiting. Refused anywhere: what this command has taken is given back, last first. */
  | { step: "take"; key: string; slot: Slot; mode: LockMode }
  /** Unlocks a slot in the guest's own descriptor, which stays open. */
  | { step: "give-up"; key: string; slot: Slot; mode: LockMode }
  /** Opens a slot's file without asking for its lock: the guest inherits the descriptor. */
  | { step: "open"; key: string; slot: Slot }
  /** Only whoever holds slot b of a key writes the offer beside it. */
  | { step: "write-offer"; key: string }
  /** Looks again whether all offers are of this ticket and not taken, now that nobody else can change them. */
  | { step: "check-offers" }
  /** One act with the look whether it is there: a source that is dead may be cleared away meanwhile, and its offers. */
  | { step: "mark-offer-taken"; key: string }
  /** Removes the offer if it is of this ticket: the guest may be on its way to a third host already. */
  | { step: "remove-offer"; key: string }
  /** Counts an exclusive grant; a source that takes back counts only if the generation has grown. */
  | { step: "count"; key: string }
  | { step: "write-note"; key: string }
  /** Removes the note if it is of this process: on one host the other side has one with the same name. */
  | { step: "remove-note"; key: string };

/** One step of a migration that concerns the guest as a whole. */
export type GuestStep =
  | { step: "write-record"; state: "migrating-out" | "incoming" | "running" }
  | { step: "remove-record" }
  /** This process becomes the guest's program. */
  | { step: "become" }
  /** The guest that waits for its locks runs on, unless its user had paused it. */
  | { step: "continue" };

/** A step of one of the commands of a migration. */
export type MigrationStep = LockspaceStep | GuestStep;

/** Steps of one kind that follow each other, for whoever does them together. */
export interface StepBatch {
  step: LockspaceStep["step"];
  keys: string[];
}

/** The steps in their order, those of one kind that follow each other together. */
export function batchesOf(steps: readonly LockspaceStep[]): StepBatch[] {
  const batches: StepBatch[] = [];
  for (const each of steps) {
    const keys = "key" in each ? [each.key] : [];
    const last = batches.at(-1);
    if (last?.step === each.step) last.keys.push(...keys);
    else batches.push({ step: each.step, keys });
  }
  return batches;
}

/** Source, prepare: the offer beside each key is there before the first slot is given up. */
export function offerSteps(keys: readonly MovingKey[]): LockspaceStep[] {
  const ordered = ascending(keys);
  return [
    ...ordered.map(({ key }): LockspaceStep => ({ step: "write-offer", key })),
    ...ordered.map(({ key, mode }): LockspaceStep => ({ step: "give-up", key, slot: "b", mode })),
  ];
}

/** Destination: takes what the source has given up. Slot a is only opened: the source still has it. */
export function incomingSteps(keys: readonly MovingKey[]): LockspaceStep[] {
  const ordered = ascending(keys);
  return [
    ...takeSteps(ordered, "b"),
    { step: "check-offers" },
    ...ordered.map(({ key }): LockspaceStep => ({ step: "open", key, slot: "a" })),
    ...countSteps(ordered),
    ...ordered.map(({ key }): LockspaceStep => ({ step: "mark-offer-taken", key })),
    ...ordered.map(({ key }): LockspaceStep => ({ step: "write-note", key })),
  ];
}

/**
 * Destination, complete: takes the slot that the source's end has freed. It holds both slots then, so the offers are
 * its own to remove, even if the source's host is gone for good.
 */
export function takeOverSteps(keys: readonly MovingKey[]): LockspaceStep[] {
  const ordered = ascending(keys);
  return [
    ...takeSteps(ordered, "a"),
    ...ordered.map(({ key }): LockspaceStep => ({ step: "write-note", key })),
    ...removeOfferSteps(ordered),
  ];
}

/** Source, cancel: slot b of an exclusive key can be had only when the destination's process has ended. */
export function takeBackSteps(keys: readonly MovingKey[]): LockspaceStep[] {
  const ordered = ascending(keys);
  return [
    ...takeSteps(ordered, "b"),
    ...countSteps(ordered),
    ...ordered.map(({ key }): LockspaceStep => ({ step: "write-note", key })),
    ...removeOfferSteps(ordered),
  ];
}

/** `migrate prepare`, on a guest that runs; the record tells of the migration before the lockspace does. */
export function prepareSteps(keys: readonly MovingKey[]): MigrationStep[] {
  return [{ step: "write-record", state: "migrating-out" }, ...offerSteps(keys)];
}

/** `migrate in`, by the process that becomes the guest. */
export function inSteps(keys: readonly MovingKey[]): MigrationStep[] {
  return [...incomingSteps(keys), { step: "write-record", state: "incoming" }, { step: "become" }];
}

/** `migrate complete` at the destination, whose QEMU has left `inmigrate`. */
export function completeInSteps(keys: readonly MovingKey[]): MigrationStep[] {
  return [...takeOverSteps(keys), { step: "write-record", state: "running" }];
}

/** `migrate complete` at the source, whose process has ended. */
export function completeOutSteps(keys: readonly MovingKey[]): MigrationStep[] {
  return [...removeOfferSteps(keys), ...removeNoteSteps(keys), { step: "remove-record" }];
}

/** `migrate cancel` at the destination, whose process has ended. The offers are the source's to remove. */
export function cancelInSteps(keys: readonly MovingKey[]): MigrationStep[] {
  return [...removeNoteSteps(keys), { step: "remove-record" }];
}

/**
 * `migrate cancel` at the source, once QEMU sends nothing any more. The record comes last: until it says `running`,
 * the command can be repeated, and so nobody is left stopped or with an offer beside its keys.
 */
export function cancelOutSteps(keys: readonly MovingKey[]): MigrationStep[] {
  return [...takeBackSteps(keys), { step: "continue" }, { step: "write-record", state: "running" }];
}

function takeSteps(ordered: readonly MovingKey[], slot: Slot): LockspaceStep[] {
  return ordered.map(({ key, mode }) => ({ step: "take", key, slot, mode }));
}

function countSteps(ordered: readonly MovingKey[]): LockspaceStep[] {
  return ordered.filter(({ mode }) => mode === "exclusive").map(({ key }) => ({ step: "count", key }));
}

function removeOfferSteps(keys: readonly MovingKey[]): LockspaceStep[] {
  return ascending(keys).map(({ key }) => ({ step: "remove-offer", key }));
}

function removeNoteSteps(keys: readonly MovingKey[]): LockspaceStep[] {
  return ascending(keys).map(({ key }) => ({ step: "remove-note", key }));
}

/** The order in which everybody asks, so that no two wait for each other in a circle. */
function ascending(keys: readonly MovingKey[]): MovingKey[] {
  return [...keys].sort((one, other) => one.key < other.key ? -1 : 1);
}
