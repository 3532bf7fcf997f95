import type { GrantedKey, RunningGuest } from "../driver/contract.ts";
import type { Departure, MigrationTicket, OutgoingMigration, WithdrawOutcome } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { isHostIdentity } from "../identity/key.ts";
import { type Grantee, noteOf } from "../lockspace/grant.ts";
import { formatNote, type HolderNote, readNoteOf, writeNotes } from "../lockspace/holder_note.ts";
import { holdersOfKey } from "../lockspace/key_holders.ts";
import { keyState } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { type MigrationOffer, removeOffer, writeOffer } from "../lockspace/migration_offer.ts";
import { hashOfTicket, newSecret } from "../lockspace/migration_ticket.ts";
import { observeSlot } from "../lockspace/slot_evidence.ts";
import { slotPath } from "../lockspace/slot.ts";
import { descriptorFlock, kernelFlocks, openDescriptors } from "../process/descriptors.ts";
import { countAgain } from "./count_again.ts";
import type { GenerationVerdict } from "./generation_check.ts";
import {
  giveUpSlots,
  requireReachOfCarriers,
  takeSlots,
  type WantedSlot,
  withBothSlots,
} from "./migration_slots.ts";

/** The guest that leaves, with all that notes tell of it. */
export type LeavingGuest = Grantee & { running: RunningGuest; leaseKeys: readonly string[] };

/**
 * Makes the ticket of a guest that is to leave. Touches nothing.
 * @throws {LockvisorError} `locked` when somebody has come in by an earlier ticket, `data` when a disk is another one by
 * now, `permission` when the guest's processes cannot be reached
 */
export function makeTicket(
  lockspace: Lockspace,
  { running, leaseKeys, host, plugin }: LeavingGuest,
  { resources, destination, lifetimeMs }: Omit<Departure, "running">,
): MigrationTicket {
  const { guest, carriers } = running;
  const keys = [...leaseKeys, ...running.resources.flatMap((resource) => resource.keys)];
  requireReachOfCarriers(lockspace, carriers, keys);
  refuseIfTaken(lockspace, { running, leaseKeys, host });
  const hostKeys = resources.flatMap(({ identities }) =>
    identities.filter(({ text }) => isHostIdentity(text, host.id)).map(({ key }) => key)
  );
  for (const { type, name, keys } of running.resources) {
    const now = resources.find((each) => each.type === type && each.name === name)?.identities ?? [];
    if (keys.every((key) => now.some((identity) => identity.key === key))) continue;
    throw new LockvisorError(
      "data",
      `${type} ${name} of guest "${guest.name}" is another one by now than the one that is locked; it cannot move`,
    );
  }
  const now = Date.now();
  return {
    secret: newSecret(),
    created: new Date(now).toISOString(),
    expires: new Date(now + lifetimeMs).toISOString(),
    guest: { uuid: guest.uuid, name: guest.name, id: guest.id, onLockFailure: guest.onLockFailure },
    plugin,
    lockspace: lockspace.id,
    source: host,
    destination,
    leaseKeys: [...leaseKeys],
    resources: running.resources.map(({ type, name, access, keys }) => ({ type, name, access, keys })),
    hostKeys: [...new Set(hostKeys)].sort(),
    grants: [...new Set(keys)].sort().map((key): GrantedKey => ({
      key,
      mode: modeOf(running, key),
      generation: keyState(lockspace, key)?.generation ?? 0,
    })),
  };
}

function modeOf({ grants }: RunningGuest, key: string): WantedSlot["mode"] {
  return grants.find((grant) => grant.key === key)?.mode ?? "exclusive";
}

/** The lease that a guest has on itself is exclusive: whoever has its second slot has come in. */
function refuseIfTaken(
  lockspace: Lockspace,
  { running: { guest, carriers }, leaseKeys, host }: Pick<LeavingGuest, "running" | "leaseKeys" | "host">,
): void {
  for (const key of leaseKeys) {
    const seen = observeSlot(lockspace, key, "b", kernelFlocks());
    if (seen.state === "free") continue;
    const path = slotPath(lockspace, key, "b");
    const isOwn = carriers.some(({ pid, locks }) =>
      locks.some((lock) => lock.key === key) && hasLocked(pid, path)
    );
    if (isOwn) continue;
    const holders = holdersOfKey(lockspace, key, seen, host).holders.filter(({ pid }) =>
      !carriers.some((carrier) => carrier.pid === pid)
    );
    const who = holders[0] === undefined ? "" : ` (pid ${holders[0].pid} on ${holders[0].host})`;
    throw new LockvisorError(
      "locked",
      `guest "${guest.name}" has come in at the destination already${who}; complete its migration, or cancel it there first`,
      { details: { holders } },
    );
  }
}

function hasLocked(pid: number, path: string): boolean {
  const view = openDescriptors(pid);
  if (view.kind !== "seen") return false;
  return [...view.targets].some(([descriptor, target]) =>
    target === path && descriptorFlock(pid, descriptor) !== undefined
  );
}

/** Lets whoever has the ticket in: an offer beside each key, then slot b of each is given up. */
export function offerSlots(
  lockspace: Lockspace,
  { running, leaseKeys, host }: LeavingGuest,
  ticket: MigrationTicket,
  migration: OutgoingMigration,
): void {
  const { guest: { uuid, name }, carriers } = running;
  const offer: MigrationOffer = {
    ticketHash: hashOfTicket(ticket),
    guest: { uuid, name },
    source: ticket.source,
    destination: ticket.destination,
    expires: ticket.expires,
  };
  const keys = [...new Set([...leaseKeys, ...ticket.resources.flatMap((resource) => resource.keys)])].sort();
  for (const key of keys) {
    writeOffer(lockspace, key, offer);
    failpoint("migrate-prepare.offered");
  }
  rewriteNotes(lockspace, keys, { hostId: host.id, uuid }, (note) => ({ ...note, migration }));
  failpoint("migrate-prepare.noted");
  giveUpSlots(lockspace, carriers, { keys, slot: "b", passing: "migrate-prepare.slot-released" });
}

/** Changes a guest's own notes; those with one text stay one file. */
function rewriteNotes(
  lockspace: Lockspace,
  keys: readonly string[],
  own: { hostId: string; uuid: string },
  change: (note: HolderNote) => HolderNote,
): void {
  const notes = new Map<string, { note: HolderNote; keys: string[] }>();
  for (const key of keys) {
    const found = readNoteOf(lockspace, key, own);
    if (found === undefined) continue;
    const note = change(found);
    const text = formatNote(note);
    notes.set(text, { note, keys: [...notes.get(text)?.keys ?? [], key] });
  }
  for (const { note, keys } of notes.values()) writeNotes(lockspace, keys, note);
}

/**
 * Takes slot b of every key back, which proves that whoever had come in has ended; then offers them no more. Where somebody
 * had come in, the keys were granted once more, so they are counted again.
 */
export function withdrawSlots(
  lockspace: Lockspace,
  { running, leaseKeys, ...grantee }: LeavingGuest,
): WithdrawOutcome {
  const { carriers, guest } = running;
  const keys = [...new Set([...leaseKeys, ...running.resources.flatMap((resource) => resource.keys)])].sort();
  const wanted = keys.map((key): WantedSlot => ({ key, mode: modeOf(running, key) }));
  requireReachOfCarriers(lockspace, carriers, keys);
  const result = takeSlots(lockspace, carriers, { wanted, slot: "b", passing: "migrate-cancel.slot-taken" });
  if (result.outcome === "lost") return result;
  if (result.outcome === "refused") {
    const seen = observeSlot(lockspace, result.key, "b", kernelFlocks());
    const holders = holdersOfKey(lockspace, result.key, seen, grantee.host).holders;
    return {
      outcome: "taken",
      key: result.key,
      holders: holders.filter(({ pid }) => !carriers.some((each) => each.pid === pid)),
    };
  }
  failpoint("migrate-cancel.taken");
  const judged = wanted.map(({ key, mode }) => {
    const state = keyState(lockspace, key);
    const remembered = running.grants.find((grant) => grant.key === key) ?? { key, mode, generation: 0 };
    const verdict: GenerationVerdict =
      (state?.generation ?? 0) === remembered.generation || isOwn(state, running) ? "counted" : "changed";
    return { remembered, state, verdict };
  });
  const grants = countAgain(lockspace, { ...grantee, guest }, judged);
  failpoint("migrate-cancel.counted");
  writeNotes(lockspace, keys, noteOf({ ...grantee, guest }, grants));
  for (const key of keys) removeOffer(lockspace, key, guest.uuid);
  failpoint("migrate-cancel.noted");
  return { outcome: "withdrawn", carriers: withBothSlots(lockspace, carriers, keys), grants };
}

/** A cancel that was cut off has counted it already. */
function isOwn(state: ReturnType<typeof keyState>, { process }: RunningGuest): boolean {
  const last = state?.lastGrant?.process;
  return last?.pid === process.pid && last.startTime === process.startTime && last.bootId === process.bootId;
}
