import type { Carrier, GrantedKey, Holder, RunningGuest } from "../driver/contract.ts";
import type { Departure, MigrationTicket, OutgoingMigration } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { isHostIdentity } from "../identity/key.ts";
import type { Grantee } from "../lockspace/grant.ts";
import { formatNote, type HolderNote, readNoteOf, writeNotes } from "../lockspace/holder_note.ts";
import { holdersOfKey, patience } from "../lockspace/key_holders.ts";
import { keyState } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { type MigrationOffer, offerIfReadable, writeOffer } from "../lockspace/migration_offer.ts";
import { batchesOf, offerSteps } from "../lockspace/migration_steps.ts";
import { hashOfTicket, newSecret } from "../lockspace/migration_ticket.ts";
import { observeSlot } from "../lockspace/slot_evidence.ts";
import { slotPath } from "../lockspace/slot.ts";
import { kernelFlocks } from "../process/descriptors.ts";
import {
  giveUpSlots,
  hasLocked,
  requireReachOfCarriers,
  takeSlots,
  type WantedSlot,
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
    resources: running.resources.map(({ type, name, access, keys, followed }) => ({
      ...{ type, name, access, keys },
      ...(followed === undefined ? {} : { followed }),
    })),
    hostKeys: [...new Set(hostKeys)].sort(),
    grants: [...new Set(keys)].sort().map((key): GrantedKey => ({
      key,
      mode: modeOf(running, key),
      generation: keyState(lockspace, key)?.generation ?? 0,
    })),
  };
}

/** In which mode a guest that runs has a key, as far as its record tells. */
export function modeOf({ grants }: RunningGuest, key: string): WantedSlot["mode"] {
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
    throw cameIn({ name: guest.name, holders });
  }
  const taken = leaseKeys.map((key) => offerIfReadable(lockspace, key, guest.uuid)?.taken)
    .find((each) => each !== undefined);
  if (taken !== undefined) {
    throw new LockvisorError(
      "locked",
      `guest "${guest.name}" has come in at the destination before (process ${taken.process.pid} on ${taken.host.name}); cancel its migration here, then prepare it anew`,
    );
  }
}

function cameIn({ name, holders }: { name: string; holders: readonly Holder[] }): LockvisorError {
  const who = holders[0] === undefined ? "" : ` (pid ${holders[0].pid} on ${holders[0].host})`;
  return new LockvisorError(
    "locked",
    `guest "${name}" has come in at the destination already${who}; complete its migration, or cancel it there first`,
    { details: { holders } },
  );
}

/** Who has slot b of a key beside the guest itself, as far as its notes tell. */
export function othersWithSlot(
  lockspace: Lockspace,
  key: string,
  { carriers, host }: { carriers: readonly Carrier[]; host: { id: string; name: string } },
): Holder[] {
  const seen = observeSlot(lockspace, key, "b", kernelFlocks());
  return holdersOfKey(lockspace, key, seen, host).holders
    .filter(({ pid }) => !carriers.some((carrier) => carrier.pid === pid));
}

/** Lets whoever has the ticket in: an offer beside each key, then slot b of each is given up. */
export async function offerSlots(
  lockspace: Lockspace,
  { running, leaseKeys, host }: LeavingGuest,
  ticket: MigrationTicket,
  migration: OutgoingMigration,
): Promise<void> {
  const { guest: { uuid, name }, carriers } = running;
  const offer: MigrationOffer = {
    ticketHash: hashOfTicket(ticket),
    guest: { uuid, name },
    source: ticket.source,
    destination: ticket.destination,
    expires: ticket.expires,
  };
  const keys = [...new Set([...leaseKeys, ...ticket.resources.flatMap((resource) => resource.keys)])].sort();
  // Offers are whoever's who has slot b: an earlier ticket may be on its way to be used.
  const wanted = keys.map((key): WantedSlot => ({ key, mode: modeOf(running, key) }));
  const judge = patience();
  const passed = () => failpoint("migrate-prepare.slot-taken");
  while (true) {
    const result = takeSlots(lockspace, carriers, { wanted, slot: "b", passed });
    if (result.outcome === "taken") break;
    // Whoever looks at a slot on shared storage has it for an instant.
    if (await judge([]) === "again") continue;
    throw cameIn({ name, holders: othersWithSlot(lockspace, result.key, { carriers, host }) });
  }
  for (const { step, keys } of batchesOf(offerSteps(wanted))) {
    switch (step) {
      case "write-offer":
        for (const key of keys) {
          writeOffer(lockspace, key, offer);
          failpoint("migrate-prepare.offered");
        }
        rewriteNotes(lockspace, keys, { hostId: host.id, uuid }, (note) => ({ ...note, migration }));
        failpoint("migrate-prepare.noted");
        break;
      case "give-up":
        giveUpSlots(lockspace, carriers, {
          keys,
          slot: "b",
          passed: () => failpoint("migrate-prepare.slot-released"),
        });
        break;
      default:
        throw noSuchStep(step);
    }
  }
}

export function noSuchStep(step: string): LockvisorError {
  return new LockvisorError("internal", `the source of a migration has no step "${step}"`);
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
