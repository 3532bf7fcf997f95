import { changeModes } from "../../lib/carrier/change_access.ts";
import { discardStrays } from "../../lib/carrier/discard.ts";
import { startHolder } from "../../lib/carrier/holder.ts";
import { carryInMonitor, closeLeftInMonitor } from "../../lib/carrier/monitor.ts";
import { giveUpKeys, keysHeld, requireReachOfKeys } from "../../lib/carrier/pause.ts";
import { type Carry, regainKeys } from "../../lib/carrier/regain.ts";
import { takeBackKeys } from "../../lib/carrier/take_back.ts";
import { unplugKeys } from "../../lib/carrier/unplug.ts";
import type {
  AccessOutcome,
  AdoptOutcome,
  CarriedLock,
  Carrier,
  GivenUpKey,
  GrantedKey,
  Guest,
  Holding,
  LockWatch,
  PlugOutcome,
  RegainOutcome,
  ResolvedResource,
  RunningGuest,
  TakeBackOutcome,
  UnplugOutcome,
} from "../../lib/driver/contract.ts";
import { failpoint } from "../../lib/failpoint.ts";
import { identity } from "../../lib/identity/key.ts";
import { leaseIdentity } from "../../lib/identity/resource.ts";
import { noted, noteOf } from "../../lib/lockspace/grant.ts";
import { removeNote } from "../../lib/lockspace/holder_note.ts";
import { patience } from "../../lib/lockspace/key_holders.ts";
import { planChange, resourcesBut } from "../../lib/lockspace/key_plan.ts";
import { LockspaceWatch } from "../../lib/lockspace/lockspace_watch.ts";
import {
  forgetGivenUp,
  type PausedGuest,
  removePausedNote,
  writePausedNote,
} from "../../lib/lockspace/paused_note.ts";
import { SLOTS } from "../../lib/lockspace/slot.ts";
import type { ProcessIdentity } from "../../lib/process/process_identity.ts";
import { guestLease, type HostLocks } from "./host_locks.ts";

/**
 * What the flock driver does for guests that run. Read only by the commands that need it: the start of a guest needs none
 * of it.
 */
export class LiveGuests {
  readonly #locks: HostLocks;

  constructor(locks: HostLocks) {
    this.#locks = locks;
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
      const keys = resources.flatMap((resource) => this.#locks.keysOf(resource));
      const monitor = { process, socket: guest.qmp };
      await closeLeftInMonitor(this.#locks.openLockspace(), monitor, { carriers, keys });
    }
    return await this.#takeBeside({ guest, process }, resources);
  }

  /** Takes all keys of resources for a process that runs, and moves them to it or beside it; or takes none. */
  async #takeBeside(
    { guest, process }: Pick<RunningGuest, "guest" | "process">,
    resources: readonly ResolvedResource[],
  ): Promise<PlugOutcome> {
    const result = await this.#locks.take({ guest, process }, resources);
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
    if (guest.qmp !== null) {
      const slots = locks.flatMap(({ key, slots }) =>
        SLOTS.filter((slot) => slot in slots).map((slot) => ({ key, slot, descriptor: slots[slot]! }))
      );
      const monitor = { process, socket: guest.qmp };
      const result = await carryInMonitor(this.#locks.openLockspace(), monitor, slots);
      if (result.outcome === "carried") return result.carrier;
      this.#locks.config.warn(
        `${result.reason}; the locks go into a process beside guest "${guest.name}" instead`,
      );
    }
    const label = `holds locks of guest ${guest.name} (pid ${process.pid})`;
    return { ...startHolder(process, descriptors, label), kind: "holder", locks };
  }

  async unplug(
    { guest, carriers }: RunningGuest,
    keys: readonly string[],
    remember?: () => void,
  ): Promise<UnplugOutcome> {
    const lockspace = this.#locks.openLockspace();
    const outcome = await unplugKeys(lockspace, { carriers, qmp: guest.qmp }, keys, remember);
    failpoint("release.unlocked");
    for (const key of keys) {
      removeNote(lockspace, key, this.#locks.config.host.id, guest.uuid);
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
    const staying = resourcesBut(running.resources, resources);
    const after = [noted(guestLease(running.guest)), ...staying, ...resources.map(noted)];
    const grantee = { ...this.#locks.grantee(running, after), running };
    const plan = planChange(running, resources);
    return await changeModes(this.#locks.openLockspace(), grantee, plan, remember);
  }

  requireReach(running: RunningGuest, keys: readonly string[]): void {
    requireReachOfKeys(this.#locks.openLockspace(), running, keys);
  }

  giveUp(
    running: RunningGuest,
    keys: readonly string[],
    remember: (givenUp: GivenUpKey[]) => void,
  ): void {
    const lockspace = this.#locks.openLockspace();
    const { guest } = running;
    giveUpKeys(lockspace, running, keys, (givenUp) => {
      remember(givenUp);
      // After the record: as long as that is there nobody reads this.
      const note = noteOf(this.#granteeWithLease(running), []);
      writePausedNote(lockspace, this.#pausedGuest(guest), { note, givenUp });
    });
    failpoint("pause.released");
    for (const key of keys) {
      removeNote(lockspace, key, this.#locks.config.host.id, guest.uuid);
      failpoint("pause.note-removed");
    }
  }

  async takeBack(
    running: RunningGuest,
    givenUp: readonly GivenUpKey[],
    changes: "refuse" | "accept",
  ): Promise<TakeBackOutcome> {
    const lockspace = this.#locks.openLockspace();
    const grantee = { ...this.#granteeWithLease(running), running };
    const outcome = await takeBackKeys(lockspace, grantee, {
      givenUp,
      changes,
      carry: this.#carrierOf(running),
    });
    if (outcome.outcome === "taken") removePausedNote(lockspace, this.#pausedGuest(running.guest));
    return outcome;
  }

  inquire(running: RunningGuest, keys: readonly string[]): GivenUpKey[] {
    return keysHeld(this.#locks.openLockspace(), running, keys);
  }

  async regain(running: RunningGuest, keys: readonly string[]): Promise<RegainOutcome> {
    const lost: GrantedKey[] = [];
    for (const key of [...keys].sort()) {
      const granted = running.grants.find((each) => each.key === key);
      if (granted === undefined) return { outcome: "unknown", key };
      lost.push(granted);
    }
    const grantee = { ...this.#granteeWithLease(running), running, lost };
    const judge = patience();
    while (true) {
      const outcome = await regainKeys(this.#locks.openLockspace(), grantee, {
        carry: this.#carrierOf(running),
        changes: "refuse",
      });
      if (outcome.outcome !== "refused" || await judge(outcome.holders) === "final") return outcome;
    }
  }

  async discard({ guest }: RunningGuest, strays: readonly Holding[]): Promise<void> {
    await discardStrays(guest.qmp, strays);
    const lockspace = this.#locks.openLockspace();
    for (const { key } of strays.flatMap(({ locks }) => locks)) {
      removeNote(lockspace, key, this.#locks.config.host.id, guest.uuid);
    }
  }

  watchLocks(): LockWatch {
    return new LockspaceWatch(this.#locks.openLockspace());
  }

  #carrierOf(running: RunningGuest): Carry {
    return (locks, descriptors) => this.#carry(running, locks, descriptors);
  }

  #granteeWithLease(running: RunningGuest) {
    return this.#locks.grantee(running, [noted(guestLease(running.guest)), ...running.resources]);
  }

  /** Where it is written what a guest gives up. */
  #pausedGuest(guest: Guest): PausedGuest {
    const { key: leaseKey } = identity(leaseIdentity("guest", guest.uuid));
    return { leaseKey, hostId: this.#locks.config.host.id, uuid: guest.uuid };
  }
}
