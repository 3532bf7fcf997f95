import type { Holder, Known } from "../driver/contract.ts";
import type { IncomingMigration, Migration, TakeOverOutcome } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { noteOf } from "../lockspace/grant.ts";
import { readNoteOf, removeNote, removeStaleNotes, writeNotes } from "../lockspace/holder_note.ts";
import { holdersOfKey } from "../lockspace/key_holders.ts";
import { ensureKeyDirectory } from "../lockspace/key_state.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { batchesOf, takeOverSteps } from "../lockspace/migration_steps.ts";
import { offerIfReadable, removeOffer } from "../lockspace/migration_offer.ts";
import { observeSlot } from "../lockspace/slot_evidence.ts";
import { slotPath } from "../lockspace/slot.ts";
import { kernelFlocks } from "../process/descriptors.ts";
import { isSameProcess } from "../process/process_identity.ts";
import {
  hasLocked,
  requireReachOfCarriers,
  takeSlots,
  type WantedSlot,
  withBothSlots,
} from "./migration_slots.ts";
import type { LeavingGuest } from "./migration_source.ts";

/**
 * Takes slot a of every key that the source had, or none. From then on the guest has its locks as after any start; what the
 * source and the migration have left beside the keys goes.
 */
export function takeOverSlots(
  lockspace: Lockspace,
  { running, leaseKeys, ...grantee }: LeavingGuest,
  { source }: IncomingMigration,
): TakeOverOutcome {
  const { carriers, grants, guest, process } = running;
  const keys = [...new Set([...leaseKeys, ...running.resources.flatMap((resource) => resource.keys)])].sort();
  const whole = new Set(
    carriers.flatMap(({ locks }) => locks.filter(({ slots }) => "a" in slots && "b" in slots)).map((
      { key },
    ) => key),
  );
  requireReachOfCarriers(lockspace, carriers, keys);
  const moving = keys.map((key): WantedSlot => ({
    key,
    mode: grants.find((grant) => grant.key === key)?.mode ?? "exclusive",
  }));
  const wanted = moving.filter(({ key }) => !whole.has(key));
  for (const { step, keys } of batchesOf(takeOverSteps(moving))) {
    switch (step) {
      case "take": {
        const passed = () => failpoint("migrate-complete.slot-taken");
        const result = takeSlots(lockspace, carriers, { wanted, slot: "a", passed });
        if (result.outcome === "lost") return result;
        if (result.outcome === "refused") {
          return stillTheSource(lockspace, result.key, { process, host: grantee.host });
        }
        failpoint("migrate-complete.taken");
        break;
      }
      case "write-note":
        for (const { key } of moving) ensureKeyDirectory(lockspace, key);
        for (const { key, mode } of wanted) {
          // Whoever has a key exclusively knows that every note about it is stale; of a shared one, the source's.
          if (mode === "exclusive") removeStaleNotes(lockspace, key, process);
          else removeNote(lockspace, key, source.id, guest.uuid);
        }
        writeNotes(lockspace, keys, noteOf({ ...grantee, guest }, grants));
        failpoint("migrate-complete.noted");
        break;
      case "remove-offer":
        for (const key of keys) {
          removeNote(lockspace, key, grantee.host.id, guest.uuid, "incoming");
          removeOffer(lockspace, key, guest.uuid);
        }
        break;
      default:
        throw new LockvisorError("internal", `the destination of a migration has no step "${step}"`);
    }
  }
  return { outcome: "taken", carriers: withBothSlots(lockspace, carriers, keys), grants };
}

function stillTheSource(
  lockspace: Lockspace,
  key: string,
  { process, host }: Pick<LeavingGuest, "process" | "host">,
): TakeOverOutcome {
  const seen = observeSlot(lockspace, key, "a", kernelFlocks());
  const { holders } = holdersOfKey(lockspace, key, seen, host);
  return {
    outcome: "waiting",
    key,
    holders: holders.filter((each) => each.pid !== process.pid || each.host !== host.name),
  };
}

/** Whether the other side of a migration has its slot of the lease that the guest has on itself, which is exclusive. */
export function lookAtOtherSide(
  lockspace: Lockspace,
  { running: { process, carriers }, leaseKeys, host }: LeavingGuest,
  { role }: Migration,
): { held: Known; holders: Holder[] } {
  const flocks = kernelFlocks();
  const slot = role === "out" ? "b" : "a";
  for (const key of leaseKeys) {
    const seen = observeSlot(lockspace, key, slot, flocks);
    if (seen.state === "free") continue;
    // A command that was cut off may have taken it for the guest already.
    const path = slotPath(lockspace, key, slot);
    if (carriers.some(({ pid }) => hasLocked(pid, path))) continue;
    const { holders } = holdersOfKey(lockspace, key, seen, host);
    return { held: true, holders: holders.filter(({ pid }) => pid !== process.pid) };
  }
  return { held: false, holders: [] };
}

/**
 * Takes away what one side of a migration has left beside its keys, after its process has ended: its notes, and if it was
 * the source the offers too. Within one host the other side may have written its own notes in their place.
 */
export function leaveKeys(
  lockspace: Lockspace,
  { running, leaseKeys, host }: LeavingGuest,
  migration: Migration,
): void {
  const { guest: { uuid }, process } = running;
  const side = migration.role === "in" ? "incoming" : "own";
  const keys = new Set([...leaseKeys, ...running.resources.flatMap((resource) => resource.keys)]);
  if (migration.role === "out") {
    for (const key of keys) {
      if (!isOfOtherTicket(lockspace, key, uuid, migration)) removeOffer(lockspace, key, uuid);
    }
  }
  for (const key of keys) {
    const note = readNoteOf(lockspace, key, { hostId: host.id, uuid, side });
    if (note !== undefined && isSameProcess(note.process, process)) {
      removeNote(lockspace, key, host.id, uuid, side);
    }
    failpoint("migrate-leave.note-removed");
  }
}

/** The guest may be on its way to a third host already. An offer that cannot be read is good for nobody. */
function isOfOtherTicket(
  lockspace: Lockspace,
  key: string,
  uuid: string,
  { ticketHash }: Migration,
): boolean {
  return (offerIfReadable(lockspace, key, uuid)?.ticketHash ?? ticketHash) !== ticketHash;
}
