import type {
  AccessOutcome,
  AcquireOutcome,
  AdoptOutcome,
  CarriedLock,
  Carrier,
  CarrierClaim,
  Driver,
  DriverConfig,
  DriverDefinition,
  Forecast,
  GivenUpKey,
  GrantedKey,
  Guest,
  Hold,
  Holder,
  Holding,
  Inspection,
  Known,
  LockEvidence,
  LockWatch,
  NotedGuest,
  PlugOutcome,
  Refusal,
  RegainOutcome,
  ResolvedResource,
  RunningGuest,
  TakeBackOutcome,
  UnplugOutcome,
} from "../lib/driver/contract.ts";
import type {
  Departure,
  IncomingMigration,
  Migration,
  MigrationTicket,
  OutgoingMigration,
  TakeOverOutcome,
  WithdrawOutcome,
} from "../lib/driver/migration.ts";
import type { LeavingGuest } from "../lib/carrier/migration_source.ts";
import type { Carry } from "../lib/carrier/regain.ts";
import { LockvisorError } from "../lib/errors.ts";
import { failpoint } from "../lib/failpoint.ts";
import { identity } from "../lib/identity/key.ts";
import { leaseIdentity } from "../lib/identity/resource.ts";
import { tryAcquireKeys } from "../lib/lockspace/acquire_keys.ts";
import { refusalAt } from "../lib/lockspace/blockers.ts";
import { type Grant, noted, noteOf, settleGrant } from "../lib/lockspace/grant.ts";
import { carrierEvidence } from "../lib/lockspace/carrier_evidence.ts";
import { holdingsIn } from "../lib/lockspace/holdings.ts";
import { forecastResources, inspectResource } from "../lib/lockspace/inspection.ts";
import { notedGuests } from "../lib/lockspace/noted_guests.ts";
import { removeNote } from "../lib/lockspace/holder_note.ts";
import { patience } from "../lib/lockspace/key_holders.ts";
import { planChange, planKeys, resourcesBut } from "../lib/lockspace/key_plan.ts";
import {
  forgetGivenUp,
  type PausedGuest,
  removePausedNote,
  writePausedNote,
} from "../lib/lockspace/paused_note.ts";
import { type Lockspace, openLockspace } from "../lib/lockspace/lockspace.ts";
import { SLOTS } from "../lib/lockspace/slot.ts";
import { observeKey } from "../lib/lockspace/slot_evidence.ts";
import { refuseTooManyLocks } from "../lib/process/descriptor_numbers.ts";
import { type FlockEntry, kernelFlocks } from "../lib/process/descriptors.ts";
import { identifySelf, type ProcessIdentity } from "../lib/process/process_identity.ts";

/** The flock driver: both slots of every key of every resource, held by the guest's own process. */
class SyncManager implements Driver {
  readonly #config: DriverConfig;
  #lockspace: Lockspace | undefined;

  constructor(config: DriverConfig) {
    this.#config = config;
  }

  async acquire(guest: Guest, resources: readonly ResolvedResource[]): Promise<AcquireOutcome> {
    const lease = guestLease(guest);
    const result = await this.#take(guest, identifySelf(), [lease, ...resources]);
    if (result.outcome === "refused") return result;
    const { locks, grants, giveBack } = result.grant;
    const hold: Hold = {
      locks,
      grants,
      leaseKeys: lease.identities.map((identity) => identity.key),
      giveBack,
    };
    return { outcome: "granted", hold };
  }

  async adopt(
    guest: Guest,
    process: ProcessIdentity,
    resources: readonly ResolvedResource[],
  ): Promise<AdoptOutcome> {
    const lease = guestLease(guest);
    const outcome = await this.#takeBeside({ guest, process }, [lease, ...resources]);
    if (outcome.outcome === "refused") return outcome;
    return { ...outcome, leaseKeys: lease.identities.map(({ key }) => key) };
  }

  async plug(
    { guest, process, carriers }: RunningGuest,
    resources: readonly ResolvedResource[],
  ): Promise<PlugOutcome> {
    if (guest.qmp !== null) {
      const { closeLeftInMonitor } = await import("../lib/carrier/live_guest.ts");
      const keys = resources.flatMap((resource) => this.keysOf(resource));
      await closeLeftInMonitor(this.#openLockspace(), { process, socket: guest.qmp }, { carriers, keys });
    }
    return await this.#takeBeside({ guest, process }, resources);
  }

  /** Takes all keys of resources for a process that runs, and moves them to it or beside it; or takes none. */
  async #takeBeside(
    { guest, process }: Pick<RunningGuest, "guest" | "process">,
    resources: readonly ResolvedResource[],
  ): Promise<PlugOutcome> {
    const result = await this.#take(guest, process, resources);
    if (result.outcome === "refused") return result;
    const { locks, grants, descriptors, letGo, giveBack } = result.grant;
    if (locks.length === 0) return { outcome: "granted", carrier: { ...process, kind: "guest", locks } };
    failpoint("carry.begun");
    try {
      const carrier = await this.#carry({ guest, process }, locks, descriptors);
      failpoint("carry.done");
      letGo();
      return { outcome: "granted", carrier, grants };
    } catch (error) {
      giveBack();
      throw error;
    }
  }

  /** Moves locks that are open here to the guest: into QEMU itself through its monitor, or else into a holder. */
  async #carry(
    { guest, process }: Pick<RunningGuest, "guest" | "process">,
    locks: CarriedLock[],
    descriptors: readonly number[],
  ): Promise<Carrier> {
    // Read only now: the start of a guest needs none of it.
    const { carryInMonitor, startHolder } = await import("../lib/carrier/live_guest.ts");
    if (guest.qmp !== null) {
      const slots = locks.flatMap(({ key, slots }) =>
        SLOTS.filter((slot) => slot in slots).map((slot) => ({ key, slot, descriptor: slots[slot]! }))
      );
      const result = await carryInMonitor(this.#openLockspace(), { process, socket: guest.qmp }, slots);
      if (result.outcome === "carried") return result.carrier;
      this.#config.warn(`${result.reason}; the locks go into a process beside guest "${guest.name}" instead`);
    }
    const label = `holds locks of guest ${guest.name} (pid ${process.pid})`;
    return { ...startHolder(process, descriptors, label), kind: "holder", locks };
  }

  async unplug(
    { guest, carriers }: RunningGuest,
    keys: readonly string[],
    remember?: () => void,
  ): Promise<UnplugOutcome> {
    const { unplugKeys } = await import("../lib/carrier/live_guest.ts");
    const lockspace = this.#openLockspace();
    const outcome = await unplugKeys(lockspace, { carriers, qmp: guest.qmp }, keys, remember);
    failpoint("release.unlocked");
    for (const key of keys) {
      removeNote(lockspace, key, this.#config.host.id, guest.uuid);
      failpoint("release.note-removed");
    }
    forgetGivenUp(lockspace, this.#pausedGuest(guest), keys);
    return outcome;
  }

  async changeAccess(
    running: RunningGuest,
    resources: readonly ResolvedResource[],
    remember: () => void,
  ): Promise<AccessOutcome> {
    const { changeModes } = await import("../lib/carrier/live_guest.ts");
    const { guest, process } = running;
    const staying = resourcesBut(running.resources, resources);
    const after = [noted(guestLease(guest)), ...staying, ...resources.map(noted)];
    const grantee = { guest, process, host: this.#config.host, plugin: definition.name, resources: after };
    const plan = planChange(running, resources);
    return await changeModes(this.#openLockspace(), { ...grantee, running }, plan, remember);
  }

  async requireReach(running: RunningGuest, keys: readonly string[]): Promise<void> {
    const { requireReachOfKeys } = await import("../lib/carrier/live_guest.ts");
    requireReachOfKeys(this.#openLockspace(), running, keys);
  }

  async giveUp(
    running: RunningGuest,
    keys: readonly string[],
    remember: (givenUp: GivenUpKey[]) => void,
  ): Promise<void> {
    const { giveUpKeys } = await import("../lib/carrier/live_guest.ts");
    const lockspace = this.#openLockspace();
    const { host } = this.#config;
    const { guest, process } = running;
    const resources = [noted(guestLease(guest)), ...running.resources];
    const grantee = { guest, process, host, plugin: definition.name, resources };
    giveUpKeys(lockspace, running, keys, (givenUp) => {
      remember(givenUp);
      // After the record: as long as that is there nobody reads this.
      writePausedNote(lockspace, this.#pausedGuest(guest), { note: noteOf(grantee, []), givenUp });
    });
    failpoint("pause.released");
    for (const key of keys) {
      removeNote(lockspace, key, this.#config.host.id, guest.uuid);
      failpoint("pause.note-removed");
    }
  }

  async takeBack(
    running: RunningGuest,
    givenUp: readonly GivenUpKey[],
    changes: "refuse" | "accept",
  ): Promise<TakeBackOutcome> {
    const { takeBackKeys } = await import("../lib/carrier/live_guest.ts");
    const { guest, process, resources } = running;
    const grantee = {
      guest,
      process,
      host: this.#config.host,
      plugin: definition.name,
      resources: [noted(guestLease(guest)), ...resources],
      running,
    };
    const lockspace = this.#openLockspace();
    const carry: Carry = (locks, descriptors) => this.#carry(running, locks, descriptors);
    const outcome = await takeBackKeys(lockspace, grantee, { givenUp, changes, carry });
    if (outcome.outcome === "taken") removePausedNote(lockspace, this.#pausedGuest(running.guest));
    return outcome;
  }

  /** Where it is written what a guest gives up. */
  #pausedGuest(guest: Guest): PausedGuest {
    const { key: leaseKey } = identity(leaseIdentity("guest", guest.uuid));
    return { leaseKey, hostId: this.#config.host.id, uuid: guest.uuid };
  }

  async inquire(running: RunningGuest, keys: readonly string[]): Promise<GivenUpKey[]> {
    const { keysHeld } = await import("../lib/carrier/live_guest.ts");
    return keysHeld(this.#openLockspace(), running, keys);
  }

  /** Takes all keys of resources for a process, or none. */
  async #take(
    guest: Guest,
    process: ProcessIdentity,
    resources: readonly ResolvedResource[],
  ): Promise<{ outcome: "granted"; grant: Grant } | { outcome: "refused"; refusal: Refusal }> {
    const lockspace = this.#openLockspace();
    const wanted = resources.filter((resource) => this.#isLocked(resource));
    this.#objectToLocalLockspace(lockspace, wanted);
    const plan = planKeys(wanted);
    refuseTooManyLocks(plan.length * 2);
    const judge = patience();
    while (true) {
      const result = tryAcquireKeys(lockspace, plan);
      if (result.outcome === "granted") {
        const grantee = {
          guest,
          process,
          host: this.#config.host,
          plugin: definition.name,
          resources: wanted.map(noted),
        };
        return { outcome: "granted", grant: settleGrant(lockspace, grantee, plan, result.slots) };
      }
      const refusal = refusalAt(lockspace, result.at, this.#config.host);
      if (await judge(refusal.holders) === "final") return { outcome: "refused", refusal };
    }
  }

  forecast(guest: Guest | undefined, resources: readonly ResolvedResource[]): Forecast[] {
    const wanted = guest === undefined ? resources : [guestLease(guest), ...resources];
    const { host } = this.#config;
    const isLocked = (resource: ResolvedResource) => this.#isLocked(resource);
    return forecastResources(this.#openLockspace(), wanted, { isLocked, host });
  }

  inspect(resource: ResolvedResource): Inspection {
    return inspectResource(this.#openLockspace(), resource, this.#config.host);
  }

  evidence(claims: readonly CarrierClaim[]): LockEvidence[][] {
    const lockspace = this.#openLockspace();
    let flocks: FlockEntry[] | undefined;
    return claims.map((claim) =>
      claim.locks.length === 0 ? [] : carrierEvidence(lockspace, claim, {
        flocks: () => flocks ??= kernelFlocks(),
        hostId: this.#config.host.id,
      })
    );
  }

  async watchLocks(): Promise<LockWatch> {
    const { LockspaceWatch } = await import("../lib/carrier/live_guest.ts");
    return new LockspaceWatch(this.#openLockspace());
  }

  async regain(running: RunningGuest, keys: readonly string[]): Promise<RegainOutcome> {
    const lost: GrantedKey[] = [];
    for (const key of [...keys].sort()) {
      const granted = running.grants.find((each) => each.key === key);
      if (granted === undefined) return { outcome: "unknown", key };
      lost.push(granted);
    }
    const { regainKeys } = await import("../lib/carrier/live_guest.ts");
    const { guest, process } = running;
    const resources = [noted(guestLease(guest)), ...running.resources];
    const grantee = { guest, process, host: this.#config.host, plugin: definition.name, resources };
    const judge = patience();
    while (true) {
      const outcome = await regainKeys(
        this.#openLockspace(),
        { ...grantee, running, lost },
        { carry: (locks, descriptors) => this.#carry(running, locks, descriptors), changes: "refuse" },
      );
      if (outcome.outcome !== "refused" || await judge(outcome.holders) === "final") return outcome;
    }
  }

  async discard({ guest }: RunningGuest, strays: readonly Holding[]): Promise<void> {
    const { discardStrays } = await import("../lib/carrier/live_guest.ts");
    await discardStrays(guest.qmp, strays);
    const lockspace = this.#openLockspace();
    for (const { key } of strays.flatMap(({ locks }) => locks)) {
      removeNote(lockspace, key, this.#config.host.id, guest.uuid);
    }
  }

  async makeTicket({ running, ...departure }: Departure): Promise<MigrationTicket> {
    const { makeTicket } = await import("../lib/carrier/migration.ts");
    return makeTicket(this.#openLockspace(), this.#moving(running), departure);
  }

  async offer(running: RunningGuest, ticket: MigrationTicket, migration: OutgoingMigration): Promise<void> {
    const { offerSlots } = await import("../lib/carrier/migration.ts");
    await offerSlots(this.#openLockspace(), this.#moving(running), ticket, migration);
  }

  async acquireIncoming(
    guest: Guest,
    ticket: MigrationTicket,
    resources: readonly ResolvedResource[],
  ): Promise<AcquireOutcome> {
    const { takeIncoming } = await import("../lib/carrier/migration.ts");
    const lockspace = this.#openLockspace();
    const lease = guestLease(guest);
    const wanted = resources.map((each) => this.#isLocked(each) ? each : { ...each, identities: [] });
    this.#objectToLocalLockspace(lockspace, wanted);
    refuseTooManyLocks(planKeys([lease, ...wanted]).length * 2);
    const arrival = { guest, ticket, lease, process: identifySelf(), host: this.#config.host };
    const judge = patience();
    while (true) {
      const result = takeIncoming(lockspace, { ...arrival, plugin: definition.name, resources: wanted });
      if (result.outcome === "granted") {
        return {
          outcome: "granted",
          hold: { ...result.grant, leaseKeys: lease.identities.map(({ key }) => key) },
        };
      }
      // Whoever looks at a slot has it for an instant: that the guest itself has the other half says nothing of this one.
      const others = result.refusal.holders.filter(({ uuid }) => uuid !== guest.uuid);
      if (await judge(others) === "final") return result;
    }
  }

  async takeOver(running: RunningGuest, migration: IncomingMigration): Promise<TakeOverOutcome> {
    const { takeOverSlots } = await import("../lib/carrier/migration.ts");
    return takeOverSlots(this.#openLockspace(), this.#moving(running), migration);
  }

  async withdraw(
    running: RunningGuest,
    confirm: () => Promise<"keep" | "decline">,
  ): Promise<WithdrawOutcome> {
    const { withdrawSlots } = await import("../lib/carrier/migration.ts");
    return await withdrawSlots(this.#openLockspace(), this.#moving(running), confirm);
  }

  async otherSide(running: RunningGuest, migration: Migration): Promise<{ held: Known; holders: Holder[] }> {
    const { lookAtOtherSide } = await import("../lib/carrier/migration.ts");
    return lookAtOtherSide(this.#openLockspace(), this.#moving(running), migration);
  }

  async leave(running: RunningGuest, migration: Migration): Promise<void> {
    const { leaveKeys } = await import("../lib/carrier/migration.ts");
    leaveKeys(this.#openLockspace(), this.#moving(running), migration);
  }

  #moving(running: RunningGuest): LeavingGuest {
    const { guest, process } = running;
    const lease = guestLease(guest);
    const resources = [noted(lease), ...running.resources];
    const leaseKeys = lease.identities.map(({ key }) => key);
    return {
      guest,
      process,
      host: this.#config.host,
      plugin: definition.name,
      resources,
      running,
      leaseKeys,
    };
  }

  holdings(pids?: readonly number[]): Holding[] {
    return holdingsIn(this.#openLockspace(), pids);
  }

  notedGuests(keys: readonly string[]): NotedGuest[] {
    return notedGuests(this.#openLockspace(), keys, this.#config.host.id);
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
    return this.#lockspace ??= openLockspace(
      this.#config.lockspace,
      this.#config.effectiveUid,
      this.#config.storage,
    );
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

const definition: DriverDefinition = {
  name: "sync-manager",
  capabilities: { resources: ["disk", "lease"], hotplug: true, migration: true, pause: true },
  create: (config) => new SyncManager(config),
};

export default definition;
