import type { CarriedLock, GrantedKey, Guest, Refusal, ResolvedResource } from "../driver/contract.ts";
import type { IncomingMigration } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { isStillNamed } from "../files/lock_file.ts";
import type { ProcessIdentity } from "../process/process_identity.ts";
import { descriptorsOf, giveBackSlots, type HeldSlot } from "./acquire_keys.ts";
import { refusalAt } from "./blockers.ts";
import { countGrants, noted, noteOf, onlyIdentity } from "./grant.ts";
import { removeNote, writeNotes } from "./holder_note.ts";
import { type IncomingPlan, planIncoming, requireFresh, requireOffered } from "./incoming_plan.ts";
import { ensureKeyDirectory, keyState, readKeyState, writeKeyState } from "./key_state.ts";
import type { PlannedKey } from "./key_plan.ts";
import type { Lockspace } from "./lockspace.ts";
import { readOffer, writeOffer } from "./migration_offer.ts";
import { hashOfTicket, type MigrationTicket } from "./migration_ticket.ts";
import { openSlot, type Slot, slotPath, SLOTS, tryLockSlot } from "./slot.ts";

/** Who comes in, and what it uses as it is called here. */
export interface Arrival {
  guest: Guest;
  process: ProcessIdentity;
  host: { id: string; name: string };
  plugin: string;
  ticket: MigrationTicket;
  lease: ResolvedResource;
  resources: readonly ResolvedResource[];
}

/** Slots of a guest that comes in, still in our own process. */
export interface IncomingGrant {
  /** What is held: one slot of each key that was offered, both of the others. */
  locks: CarriedLock[];
  grants: GrantedKey[];
  /** Descriptors of the slots that the source still has, open and unlocked. */
  unlocked: number[];
  giveBack(): void;
}

/** What coming in gave. */
export type IncomingOutcome =
  | { outcome: "granted"; grant: IncomingGrant }
  | { outcome: "refused"; refusal: Refusal };

/** What is open here for a key: locked, or for the time when the source lets go. */
type OpenSlot = HeldSlot & { state: "held" | "unlocked" };

/**
 * Takes slot b of every key that the source offers, and both slots of those that mean something here alone, in ascending
 * order; opens slot a of the former. All or nothing. The ticket is looked at before and after: from the second look on
 * nobody can withdraw what it stands for.
 * @throws {LockvisorError} as `requireOffered`
 */
export function takeIncoming(lockspace: Lockspace, arrival: Arrival): IncomingOutcome {
  const { ticket, lease, resources, host } = arrival;
  requireFresh(ticket, Date.now());
  if (ticket.lockspace !== lockspace.id) {
    throw new LockvisorError(
      "data",
      `the ticket is for another lockspace (id ${ticket.lockspace}) than ${lockspace.path} (id ${lockspace.id}); both hosts must use the same one`,
    );
  }
  // Before anything that it says is believed.
  for (const key of new Set([...ticket.leaseKeys, ...ticket.resources.flatMap(({ keys }) => keys)])) {
    requireOffered(ticket, { key }, readOffer(lockspace, key, ticket.guest.uuid), Date.now());
  }
  const plan = planIncoming(ticket, lease, resources, { hostId: host.id });
  for (const planned of plan.offered) requireStillOffered(lockspace, ticket, planned);
  const slots: OpenSlot[] = [];
  let complete = false;
  try {
    for (const planned of [...plan.offered, ...plan.own].sort(byKey)) {
      const wanted = plan.offered.includes(planned) ? ["b" as const] : SLOTS;
      for (const slot of wanted) {
        const result = tryLockSlot(lockspace, planned.key, slot, planned.mode);
        if (result.outcome === "refused") {
          return { outcome: "refused", refusal: refusalAt(lockspace, planned, host) };
        }
        slots.push({ key: planned.key, slot, file: result.file, state: "held" });
        failpoint("migrate-in.slot-taken");
      }
    }
    for (const planned of plan.offered) requireStillOffered(lockspace, ticket, planned);
    for (const { key } of plan.offered) {
      slots.push({ key, slot: "a", file: openUnlocked(lockspace, key), state: "unlocked" });
    }
    const grant = settle(lockspace, arrival, plan, slots);
    complete = true;
    return { outcome: "granted", grant };
  } finally {
    if (!complete) giveBackSlots(slots);
  }
}

function byKey(one: PlannedKey, other: PlannedKey): number {
  return one.key < other.key ? -1 : 1;
}

/** @throws {LockvisorError} `data` also when somebody had a key since the ticket was made */
function requireStillOffered(lockspace: Lockspace, ticket: MigrationTicket, planned: PlannedKey): void {
  requireOffered(ticket, planned, readOffer(lockspace, planned.key, ticket.guest.uuid), Date.now());
  const generation = keyState(lockspace, planned.key)?.generation ?? 0;
  if (ticket.grants.some((each) => each.key === planned.key && each.generation === generation)) return;
  const { type, name } = planned.resource;
  throw new LockvisorError(
    "data",
    `the ticket of guest "${ticket.guest.name}" is stale: somebody has had ${type} ${name} since it was made; cancel the migration on ${ticket.source.name} and prepare it anew`,
  );
}

function openUnlocked(lockspace: Lockspace, key: string): Deno.FsFile {
  const file = openSlot(lockspace, key, "a");
  if (file !== "vanished") {
    if (isStillNamed(slotPath(lockspace, key, "a"), file)) return file;
    file.close();
  }
  throw new LockvisorError(
    "io",
    `lock file ${slotPath(lockspace, key, "a")} was exchanged; does the source still run? try again`,
  );
}

/** Counts the grants, marks the offers as used, leaves the notes. What was begun is taken back if it fails. */
function settle(
  lockspace: Lockspace,
  { guest, process, host, plugin, ticket, lease, resources }: Arrival,
  plan: IncomingPlan,
  slots: readonly OpenSlot[],
): IncomingGrant {
  const keys = [...plan.offered, ...plan.own].map(({ key }) => key);
  const migration: IncomingMigration = {
    role: "in",
    source: ticket.source,
    ticketHash: hashOfTicket(ticket),
  };
  const giveBack = () => {
    try {
      for (const key of keys) removeNote(lockspace, key, host.id, guest.uuid, "incoming");
    } finally {
      giveBackSlots(slots);
    }
  };
  try {
    for (const key of keys) ensureKeyDirectory(lockspace, key);
    const grantee = { guest, process, host, plugin, resources: [lease, ...resources].map(noted) };
    const grants = [
      ...countOffered(lockspace, grantee, plan.offered),
      ...countGrants(lockspace, grantee, plan.own),
    ];
    failpoint("migrate-in.counted");
    const note = noteOf(grantee, grants);
    const taken = { host, process: onlyIdentity(process), since: note.since };
    for (const planned of plan.offered) {
      const offer = readOffer(lockspace, planned.key, guest.uuid);
      // The source may have ended meanwhile, and what it left been taken away.
      requireOffered(ticket, planned, offer, Date.now());
      writeOffer(lockspace, planned.key, { ...offer!, taken });
    }
    failpoint("migrate-in.marked");
    writeNotes(lockspace, keys, { ...note, migration });
    failpoint("migrate-in.noted");
    const numbers = descriptorsOf(lockspace, slots);
    return {
      locks: locksOf(slots, numbers),
      grants,
      unlocked: numbers.filter((_, index) => slots[index]!.state === "unlocked"),
      giveBack,
    };
  } catch (error) {
    for (const key of keys) removeNote(lockspace, key, host.id, guest.uuid, "incoming");
    throw error;
  }
}

/** As for any exclusive grant, but what lies beside the key is the source's, which still has a slot. */
function countOffered(
  lockspace: Lockspace,
  { guest: { uuid, name }, host, process }: Pick<Arrival, "guest" | "host" | "process">,
  plan: readonly PlannedKey[],
): GrantedKey[] {
  const lastGrant = {
    guest: { uuid, name },
    host,
    process: onlyIdentity(process),
    since: `${new Date().toISOString().slice(0, 19)}Z`,
  };
  return plan.map(({ key, identity, mode }) => {
    const earlier = mode === "exclusive" ? readKeyState(lockspace, key, identity) : keyState(lockspace, key);
    if (mode === "shared") return { key, mode, generation: earlier?.generation ?? 0 };
    const generation = (earlier?.generation ?? 0) + 1;
    writeKeyState(
      lockspace,
      key,
      { identity, generation, lastGrant },
      earlier === undefined ? "first" : "later",
    );
    failpoint("migrate-in.key-counted");
    return { key, mode, generation };
  });
}

function locksOf(slots: readonly OpenSlot[], numbers: readonly number[]): CarriedLock[] {
  const locks = new Map<string, CarriedLock>();
  slots.forEach(({ key, slot, state }, index) => {
    if (state === "unlocked") return;
    const lock: CarriedLock = locks.get(key) ?? { key, slots: {} as Partial<Record<Slot, number>> };
    lock.slots[slot] = numbers[index]!;
    locks.set(key, lock);
  });
  return [...locks.values()];
}
