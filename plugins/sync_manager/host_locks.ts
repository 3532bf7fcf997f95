import type {
  DriverConfig,
  Guest,
  Refusal,
  ResolvedResource,
  RunningGuest,
} from "../../lib/driver/contract.ts";
import { LockvisorError } from "../../lib/errors.ts";
import { identity } from "../../lib/identity/key.ts";
import { leaseIdentity } from "../../lib/identity/resource.ts";
import { tryAcquireKeys } from "../../lib/lockspace/acquire_keys.ts";
import { refusalAt } from "../../lib/lockspace/blockers.ts";
import { type Grant, type Grantee, noted, settleGrant } from "../../lib/lockspace/grant.ts";
import { patience } from "../../lib/lockspace/key_holders.ts";
import { planKeys } from "../../lib/lockspace/key_plan.ts";
import { type Lockspace, openLockspace } from "../../lib/lockspace/lockspace.ts";
import { refuseTooManyLocks } from "../../lib/process/descriptor_numbers.ts";
import type { ProcessIdentity } from "../../lib/process/process_identity.ts";

/** The driver's name, as notes and tickets have it. */
export const NAME = "sync-manager";

/** The lockspace of a host, and how locks are taken in it for whatever guest. */
export class HostLocks {
  readonly config: DriverConfig;
  #lockspace: Lockspace | undefined;

  constructor(config: DriverConfig) {
    this.config = config;
  }

  openLockspace(): Lockspace {
    return this.#lockspace ??= openLockspace(
      this.config.lockspace,
      this.config.effectiveUid,
      this.config.storage,
    );
  }

  /** Takes all keys of resources for a process, or none. */
  async take(
    { guest, process }: Pick<RunningGuest, "guest" | "process">,
    resources: readonly ResolvedResource[],
  ): Promise<{ outcome: "granted"; grant: Grant } | { outcome: "refused"; refusal: Refusal }> {
    const lockspace = this.openLockspace();
    const wanted = resources.filter((resource) => this.isLocked(resource));
    this.objectToLocalLockspace(lockspace, wanted);
    const plan = planKeys(wanted);
    refuseTooManyLocks(plan.length * 2);
    const judge = patience();
    while (true) {
      const result = tryAcquireKeys(lockspace, plan);
      if (result.outcome === "granted") {
        const grantee = this.grantee({ guest, process }, wanted.map(noted));
        return { outcome: "granted", grant: settleGrant(lockspace, grantee, plan, result.slots) };
      }
      const refusal = refusalAt(lockspace, result.at, this.config.host);
      if (await judge(refusal.holders) === "final") return { outcome: "refused", refusal };
    }
  }

  /** Who gets locks here, and for what. */
  grantee(
    { guest, process }: { guest: Guest; process: ProcessIdentity },
    resources: Grantee["resources"],
  ): Grantee {
    return { guest, process, host: this.config.host, plugin: NAME, resources };
  }

  isLocked(resource: ResolvedResource): boolean {
    return !(resource.type === "disk" && resource.access === "readonly" &&
      this.config.readonlyDisks === "none");
  }

  /** The keys that a resource is locked by. */
  keysOf(resource: ResolvedResource): string[] {
    return this.isLocked(resource) ? resource.identities.map((identity) => identity.key) : [];
  }

  /**
   * A disk that other hosts can reach is not protected from them by a lockspace that they cannot see.
   * @throws {LockvisorError} `config`, unless the configuration has it that this is told or ignored
   */
  objectToLocalLockspace(lockspace: Lockspace, resources: readonly ResolvedResource[]): void {
    const exposed = resources.find((resource) => resource.onNetworkStorage);
    if (exposed === undefined || this.config.sharedStorage === "ignore") return;
    if (lockspace.reach === "network") return;
    const line =
      `${exposed.type} ${exposed.name} is on shared storage, but lockspace ${lockspace.path} is on this host only: other hosts are not kept out; put the lockspace on the shared storage`;
    if (this.config.sharedStorage === "refuse") throw new LockvisorError("config", line);
    this.config.warn(line);
  }
}

/** The lease that every guest takes on itself, so that it cannot be started twice. */
export function guestLease(guest: Guest): ResolvedResource {
  return {
    type: "lease",
    name: `guest:${guest.uuid}`,
    access: "exclusive",
    identities: [identity(leaseIdentity("guest", guest.uuid))],
    onNetworkStorage: false,
  };
}
