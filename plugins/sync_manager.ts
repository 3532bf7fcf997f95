import type {
  AcquireOutcome,
  CarrierClaim,
  Driver,
  DriverConfig,
  DriverDefinition,
  Forecast,
  Guest,
  Hold,
  Holding,
  Inspection,
  Known,
  LockEvidence,
  NotedGuest,
  ResolvedResource,
} from "../lib/driver/contract.ts";
import { carrierEvidence } from "../lib/lockspace/carrier_evidence.ts";
import { holdingsIn } from "../lib/lockspace/holdings.ts";
import { forecastResources, inspectResource } from "../lib/lockspace/inspection.ts";
import { notedGuests } from "../lib/lockspace/noted_guests.ts";
import { observeKey } from "../lib/lockspace/slot_evidence.ts";
import { type FlockEntry, kernelFlocks } from "../lib/process/descriptors.ts";
import { identifySelf } from "../lib/process/process_identity.ts";
import { guestLease, HostLocks, NAME } from "./sync_manager/host_locks.ts";
import type { LiveGuests } from "./sync_manager/live_guests.ts";
import type { MovingGuests } from "./sync_manager/moving_guests.ts";

/**
 * The flock driver: both slots of every key of every resource, held by the guest's own process. What it does for guests
 * that run and for those that move is read only when it is called for: the start of a guest needs none of it.
 */
class SyncManager implements Driver {
  readonly #config: DriverConfig;
  readonly #locks: HostLocks;

  constructor(config: DriverConfig) {
    this.#config = config;
    this.#locks = new HostLocks(config);
  }

  async acquire(guest: Guest, resources: readonly ResolvedResource[]): Promise<AcquireOutcome> {
    const lease = guestLease(guest);
    const result = await this.#locks.take({ guest, process: identifySelf() }, [lease, ...resources]);
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

  forecast(guest: Guest | undefined, resources: readonly ResolvedResource[]): Forecast[] {
    const wanted = guest === undefined ? resources : [guestLease(guest), ...resources];
    const { host } = this.#config;
    const isLocked = (resource: ResolvedResource) => this.#locks.isLocked(resource);
    return forecastResources(this.#locks.openLockspace(), wanted, { isLocked, host });
  }

  inspect(resource: ResolvedResource): Inspection {
    return inspectResource(this.#locks.openLockspace(), resource, this.#config.host);
  }

  evidence(claims: readonly CarrierClaim[]): LockEvidence[][] {
    const lockspace = this.#locks.openLockspace();
    let flocks: FlockEntry[] | undefined;
    return claims.map((claim) =>
      claim.locks.length === 0 ? [] : carrierEvidence(lockspace, claim, {
        flocks: () => flocks ??= kernelFlocks(),
        hostId: this.#config.host.id,
      })
    );
  }

  holdings(pids?: readonly number[]): Holding[] {
    return holdingsIn(this.#locks.openLockspace(), pids);
  }

  notedGuests(keys: readonly string[]): NotedGuest[] {
    return notedGuests(this.#locks.openLockspace(), keys, this.#config.host.id);
  }

  isHeld(keys: readonly string[]): Known {
    if (keys.length === 0) return false;
    const lockspace = this.#locks.openLockspace();
    const flocks = kernelFlocks();
    return keys.some((key) => observeKey(lockspace, key, flocks).state !== "free");
  }

  keysOf(resource: ResolvedResource): string[] {
    return this.#locks.keysOf(resource);
  }

  async adopt(...call: Parameters<LiveGuests["adopt"]>) {
    return await (await this.#live()).adopt(...call);
  }

  async plug(...call: Parameters<LiveGuests["plug"]>) {
    return await (await this.#live()).plug(...call);
  }

  async unplug(...call: Parameters<LiveGuests["unplug"]>) {
    return await (await this.#live()).unplug(...call);
  }

  async changeAccess(...call: Parameters<LiveGuests["changeAccess"]>) {
    return await (await this.#live()).changeAccess(...call);
  }

  async requireReach(...call: Parameters<LiveGuests["requireReach"]>) {
    return await (await this.#live()).requireReach(...call);
  }

  async giveUp(...call: Parameters<LiveGuests["giveUp"]>) {
    return await (await this.#live()).giveUp(...call);
  }

  async takeBack(...call: Parameters<LiveGuests["takeBack"]>) {
    return await (await this.#live()).takeBack(...call);
  }

  async inquire(...call: Parameters<LiveGuests["inquire"]>) {
    return await (await this.#live()).inquire(...call);
  }

  async regain(...call: Parameters<LiveGuests["regain"]>) {
    return await (await this.#live()).regain(...call);
  }

  async discard(...call: Parameters<LiveGuests["discard"]>) {
    return await (await this.#live()).discard(...call);
  }

  async watchLocks(...call: Parameters<LiveGuests["watchLocks"]>) {
    return await (await this.#live()).watchLocks(...call);
  }

  async makeTicket(...call: Parameters<MovingGuests["makeTicket"]>) {
    return await (await this.#moving()).makeTicket(...call);
  }

  async offer(...call: Parameters<MovingGuests["offer"]>) {
    return await (await this.#moving()).offer(...call);
  }

  async acquireIncoming(...call: Parameters<MovingGuests["acquireIncoming"]>) {
    return await (await this.#moving()).acquireIncoming(...call);
  }

  async takeOver(...call: Parameters<MovingGuests["takeOver"]>) {
    return await (await this.#moving()).takeOver(...call);
  }

  async withdraw(...call: Parameters<MovingGuests["withdraw"]>) {
    return await (await this.#moving()).withdraw(...call);
  }

  async otherSide(...call: Parameters<MovingGuests["otherSide"]>) {
    return await (await this.#moving()).otherSide(...call);
  }

  async leave(...call: Parameters<MovingGuests["leave"]>) {
    return await (await this.#moving()).leave(...call);
  }

  async #live(): Promise<LiveGuests> {
    const { LiveGuests } = await import("./sync_manager/live_guests.ts");
    return new LiveGuests(this.#locks);
  }

  async #moving(): Promise<MovingGuests> {
    const { MovingGuests } = await import("./sync_manager/moving_guests.ts");
    return new MovingGuests(this.#locks);
  }
}

const definition: DriverDefinition = {
  name: NAME,
  capabilities: { resources: ["disk", "lease"], hotplug: true, migration: true, pause: true },
  create: (config) => new SyncManager(config),
};

export default definition;
