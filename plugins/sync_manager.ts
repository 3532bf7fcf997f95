import type {
  AcquireOutcome,
  CarriedLock,
  CarrierClaim,
  Driver,
  DriverConfig,
  DriverDefinition,
  Forecast,
  Guest,
  Hold,
  Holder,
  Inspection,
  Known,
  LockEvidence,
  Refusal,
  ResolvedResource,
} from "../lib/driver/contract.ts";
import { LockvisorError } from "../lib/errors.ts";
import { identity } from "../lib/identity/key.ts";
import { leaseIdentity } from "../lib/identity/resource.ts";
import { setOnExec } from "../lib/libc/exec.ts";
import { giveBackSlots, type HeldSlot, tryAcquireKeys } from "../lib/lockspace/acquire_keys.ts";
import { carrierEvidence } from "../lib/lockspace/carrier_evidence.ts";
import { type HolderNote, removeNote, removeStaleNotes, writeNotes } from "../lib/lockspace/holder_note.ts";
import { blockersOf, holdersOfKey } from "../lib/lockspace/key_holders.ts";
import { planKeys, type PlannedKey } from "../lib/lockspace/key_plan.ts";
import { ensureKeyDirectory, readKeyState, writeKeyState } from "../lib/lockspace/key_state.ts";
import { type Lockspace, openLockspace } from "../lib/lockspace/lockspace.ts";
import { slotPath } from "../lib/lockspace/slot.ts";
import { observeKey, type SlotEvidence } from "../lib/lockspace/slot_evidence.ts";
import { ownDescriptorNumbers, refuseTooManyLocks } from "../lib/process/descriptor_numbers.ts";
import { type FlockEntry, kernelFlocks } from "../lib/process/descriptors.ts";
import { identifySelf } from "../lib/process/process_identity.ts";

/**
 * How long a refusal without a name is tried again, in milliseconds: whoever holds the key but has left no note
 * yet is either starting (and will have one in an instant), or giving back (and the key is free in an instant).
 */
const NAMELESS_HOLDER_MS = 1000;

/** The flock driver: both slots of every key of every resource, held by the guest's own process. */
class SyncManager implements Driver {
  readonly #config: DriverConfig;
  #lockspace: Lockspace | undefined;

  constructor(config: DriverConfig) {
    this.#config = config;
  }

  async acquire(guest: Guest, resources: readonly ResolvedResource[]): Promise<AcquireOutcome> {
    const lockspace = this.#openLockspace();
    const wanted = [guestLease(guest), ...resources.filter((resource) => this.#isLocked(resource))];
    this.#objectToLocalLockspace(lockspace, wanted);
    const plan = planKeys(wanted);
    refuseTooManyLocks(plan.length * 2);
    const deadline = Date.now() + NAMELESS_HOLDER_MS;
    while (true) {
      const result = tryAcquireKeys(lockspace, plan);
      if (result.outcome === "granted") {
        return { outcome: "granted", hold: this.#settle(lockspace, guest, wanted, plan, result.slots) };
      }
      const refusal = this.#refusal(lockspace, result.at);
      if (refusal.holders.some((holder) => holder.name !== null) || Date.now() >= deadline) {
        return { outcome: "refused", refusal };
      }
      await new Promise((resolve) => setTimeout(resolve, 2 + Math.random() * 8));
    }
  }

  forecast(guest: Guest | undefined, resources: readonly ResolvedResource[]): Forecast[] {
    const lockspace = this.#openLockspace();
    const flocks = kernelFlocks();
    const wanted = guest === undefined ? resources : [guestLease(guest), ...resources];
    planKeys(wanted.filter((resource) => this.#isLocked(resource)));
    return wanted.map((resource) => {
      if (!this.#isLocked(resource)) return { resource, verdict: "skipped", holders: [] };
      for (const planned of planKeys([resource])) {
        const evidence = observeKey(lockspace, planned.key, flocks);
        if (evidence.state === "free") continue;
        if (evidence.state === "shared" && planned.mode === "shared") continue;
        return { resource, verdict: "refused", holders: this.#blockers(lockspace, planned, evidence) };
      }
      return { resource, verdict: "free", holders: [] };
    });
  }

  inspect(resource: ResolvedResource): Inspection {
    const lockspace = this.#openLockspace();
    const flocks = kernelFlocks();
    const holders = new Map<string, Holder>();
    const warnings = new Set<string>();
    let locked = false;
    let generation: number | null = null;
    for (const { key, text, scope } of resource.identities) {
      const state = readKeyState(lockspace, key, text);
      if (state !== undefined && scope === "whole") generation = Math.max(generation ?? 0, state.generation);
      const evidence = observeKey(lockspace, key, flocks);
      if (evidence.state === "free") continue;
      // A larger disk that contains this one is held by the users of its other parts too; only its owner counts.
      if (scope === "containing" && evidence.state === "shared") continue;
      locked = true;
      const found = holdersOfKey(lockspace, key, evidence, this.#config.host);
      for (const holder of found.holders) holders.set(`${holder.uuid} ${holder.pid} ${holder.host}`, holder);
      for (const warning of found.damaged) warnings.add(warning);
    }
    return { locked, generation, holders: [...holders.values()], warnings: [...warnings] };
  }

  evidence(claims: readonly CarrierClaim[]): LockEvidence[][] {
    const lockspace = this.#openLockspace();
    let flocks: FlockEntry[] | undefined;
    return claims.map((claim) =>
      claim.locks.length === 0 ? [] : carrierEvidence(lockspace, claim, flocks ??= kernelFlocks())
    );
  }

  isHeld(keys: readonly string[]): Known {
    if (keys.length === 0) return false;
    const lockspace = this.#openLockspace();
    const flocks = kernelFlocks();
    return keys.some((key) => observeKey(lockspace, key, flocks).state !== "free");
  }

  keysOf(resource: ResolvedResource): string[] {
    return this.#isLocked(resource) ? resource.identities.map((identity) => identity.key) : [];
  }

  #openLockspace(): Lockspace {
    return this.#lockspace ??= openLockspace(this.#config.lockspace, this.#config.effectiveUid);
  }

  #isLocked(resource: ResolvedResource): boolean {
    return !(resource.type === "disk" && resource.access === "readonly" &&
      this.#config.readonlyDisks === "none");
  }

  /** A disk that other hosts can reach is not protected from them by a lockspace that they cannot see. */
  #objectToLocalLockspace(lockspace: Lockspace, resources: readonly ResolvedResource[]): void {
    const exposed = resources.find((resource) => resource.onNetworkStorage);
    if (exposed === undefined || this.#config.sharedStorage === "ignore") return;
    if (lockspace.reach === "network") return;
    const line =
      `${exposed.type} ${exposed.name} is on shared storage, but lockspace ${lockspace.path} is on this host only: other hosts are not kept out; put the lockspace on the shared storage`;
    if (this.#config.sharedStorage === "refuse") throw new LockvisorError("config", line);
    this.#config.warn(line);
  }

  #blockers(lockspace: Lockspace, planned: PlannedKey, evidence: SlotEvidence): Holder[] {
    const { holders } = holdersOfKey(lockspace, planned.key, evidence, this.#config.host);
    return blockersOf(holders, planned.mode);
  }

  #refusal(lockspace: Lockspace, planned: PlannedKey): Refusal {
    const evidence = observeKey(lockspace, planned.key, kernelFlocks());
    // Between the refusal and this look the holder may have gone, or its lock may not be shown: notes still tell.
    const seen: SlotEvidence = evidence.state === "free" ? { state: "exclusive", pids: [] } : evidence;
    const { type, name, access } = planned.resource;
    return { resource: { type, name, access }, holders: this.#blockers(lockspace, planned, seen) };
  }

  /** All keys are ours: count the grants, leave the notes, find the descriptors. Gives all back if that fails. */
  #settle(
    lockspace: Lockspace,
    guest: Guest,
    resources: readonly ResolvedResource[],
    plan: readonly PlannedKey[],
    slots: HeldSlot[],
  ): Hold {
    const keys = plan.map(({ key }) => key);
    let noted = false;
    const giveBack = () => {
      if (noted) { for (const key of keys) removeNote(lockspace, key, this.#config.host.id, guest.uuid); }
      giveBackSlots(slots);
    };
    try {
      for (const key of keys) ensureKeyDirectory(lockspace, key);
      countGrants(lockspace, plan);
      noted = true;
      writeNotes(lockspace, keys, this.#noteFor(guest, resources));
      const numbers = ownDescriptorNumbers(slots.map(({ key, slot }) => slotPath(lockspace, key, slot)));
      return {
        locks: carriedLocks(slots, numbers),
        leaseKeys: guestLease(guest).identities.map((identity) => identity.key),
        makeInheritable: () => numbers.forEach((number) => setOnExec(number, "kept")),
        giveBack,
      };
    } catch (error) {
      giveBack();
      throw error;
    }
  }

  #noteFor(guest: Guest, resources: readonly ResolvedResource[]): HolderNote {
    return {
      guest: { uuid: guest.uuid, name: guest.name, id: guest.id },
      host: this.#config.host,
      process: identifySelf(),
      since: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
      resources: resources.map(({ type, name, access, identities }) => ({
        type,
        name,
        access,
        keys: identities.map(({ key }) => key),
      })),
      plugin: definition.name,
      qmp: guest.qmp,
      onLockFailure: guest.onLockFailure,
    };
  }
}

/** Adds one to the generation of every key that was granted exclusively. All states are read before one is written. */
function countGrants(lockspace: Lockspace, plan: readonly PlannedKey[]): void {
  const exclusive = plan.filter(({ mode }) => mode === "exclusive");
  const states = exclusive.map(({ key, identity }) => readKeyState(lockspace, key, identity));
  exclusive.forEach(({ key, identity }, index) => {
    const earlier = states[index];
    const state = { identity, generation: (earlier?.generation ?? 0) + 1 };
    writeKeyState(lockspace, key, state, earlier === undefined ? "first" : "later");
    removeStaleNotes(lockspace, key);
  });
}

/** The lease that every guest takes on itself, so that it cannot be started twice. */
function guestLease(guest: Guest): ResolvedResource {
  return {
    type: "lease",
    name: `guest:${guest.uuid}`,
    access: "exclusive",
    identities: [identity(leaseIdentity("guest", guest.uuid))],
    onNetworkStorage: false,
  };
}

function carriedLocks(slots: readonly HeldSlot[], numbers: readonly number[]): CarriedLock[] {
  const locks = new Map<string, CarriedLock>();
  slots.forEach(({ key, slot }, index) => {
    const lock = locks.get(key) ?? { key, slots: {} };
    lock.slots[slot] = numbers[index]!;
    locks.set(key, lock);
  });
  return [...locks.values()];
}

const definition: DriverDefinition = {
  name: "sync-manager",
  capabilities: { resources: ["disk", "lease"], hotplug: false, migration: false, pause: false },
  create: (config) => new SyncManager(config),
};

export default definition;
