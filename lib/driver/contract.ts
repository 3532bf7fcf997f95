import type { ResolvedResource, ResourceType } from "../identity/resource.ts";
import type { LockspaceLocation } from "../lockspace/lockspace.ts";
import type { ProcessIdentity } from "../process/process_identity.ts";
import type {
  CarrierClaim,
  GivenUpKey,
  Guest,
  Holding,
  Known,
  LockEvidence,
  NotedGuest,
  RunningGuest,
} from "./guest.ts";
import type { LockWatch } from "./lock_watch.ts";
import type { MigrationMethods } from "./migration.ts";
import type {
  AccessOutcome,
  AcquireOutcome,
  AdoptOutcome,
  Forecast,
  Inspection,
  PlugOutcome,
  RegainOutcome,
  TakeBackOutcome,
  UnplugOutcome,
} from "./outcome.ts";

/*
 * What a driver does. Whoever writes or uses one finds everything here: what the methods speak of is in guest.ts, and what
 * they give in outcome.ts.
 */
export type { ResolvedResource, ResourceType } from "../identity/resource.ts";
export type * from "./guest.ts";
export type { LockDoubt, LockWatch, WatchedGuest } from "./lock_watch.ts";
export type * from "./outcome.ts";

/** What a driver can do; the manager refuses the rest before anything happens. */
export interface DriverCapabilities {
  /** Types of resources that it locks one by one; empty for a driver that leases whole guests only. */
  resources: readonly ResourceType[];
  /** Locks and releases resources of guests that run. */
  hotplug: boolean;
  migration: boolean;
  /** Gives locks of a paused guest up and takes them back. */
  pause: boolean;
}

/** What a driver is given when it is loaded. */
export interface DriverConfig {
  lockspace: LockspaceLocation;
  host: { id: string; name: string };
  readonlyDisks: "lock" | "none";
  sharedStorage: "warn" | "refuse" | "ignore";
  effectiveUid: number;
  /** Directories that are the same storage on every host: a lockspace in one of them reaches the other hosts. */
  storage: readonly { id: string; path: string }[];
  /** Called with one line for the administrator. */
  warn(line: string): void;
}

/** What every driver does. */
export interface CoreMethods {
  /** Takes all locks of a guest that is about to start in this process, or none. */
  acquire(guest: Guest, resources: readonly ResolvedResource[]): Promise<AcquireOutcome>;
}

/** What a driver of the ability `hotplug` does. */
export interface HotplugMethods {
  /**
   * Takes all locks of a guest whose process runs already, the lease on itself included, or none. They are in a
   * carrier beside that process then, or in QEMU itself.
   */
  adopt(
    guest: Guest,
    process: ProcessIdentity,
    resources: readonly ResolvedResource[],
  ): Promise<AdoptOutcome>;
  /** Takes all locks of resources that a running guest gets, or none. They are in a carrier of their own then. */
  plug(running: RunningGuest, resources: readonly ResolvedResource[]): Promise<PlugOutcome>;
  /**
   * Gives up keys that a running guest holds, wherever they are held, with their notes.
   * @param remember told before the first lock goes, and not when none can go: cut off after that, nobody may take the
   * locks for lost
   */
  unplug(running: RunningGuest, keys: readonly string[], remember?: () => void): Promise<UnplugOutcome>;
}

/** What a driver of the ability `hotplug` may do. */
export interface AccessMethods {
  /**
   * Changes the access that a running guest has to resources, all or none, and in such a way that at every instant nobody
   * gets what neither the earlier nor the later access lets others have. Stronger: refused if others have it. Weaker: it
   * always succeeds, and may be done again after it was cut off anywhere. Without this method a resource must be released
   * and acquired anew.
   * @param resources as they are to be, with those identities alone whose keys the guest has; none has a text where all
   * become weaker
   * @param remember told before the first lock changes, and not when none does: cut off after that, nobody may take the
   * locks for lost, whatever mode they are in
   */
  changeAccess?(
    running: RunningGuest,
    resources: readonly ResolvedResource[],
    remember: () => void,
  ): Promise<AccessOutcome>;
}

/** What a driver of the ability `pause` does. */
export interface PauseMethods {
  /**
   * Makes sure, before the guest is stopped for it, that keys can be given up: what throws here leaves the guest
   * running. Without this method `giveUp` is the first to tell, and the guest stands still by then.
   */
  requireReach?(running: RunningGuest, keys: readonly string[]): Promise<void>;
  /**
   * Gives keys of a paused guest up until it resumes.
   * @param remember told what is given up before the first lock goes: cut off after that, nobody may believe that
   * the guest still has it
   */
  giveUp(
    running: RunningGuest,
    keys: readonly string[],
    remember: (givenUp: GivenUpKey[]) => void,
  ): Promise<void>;
  /** Takes given-up keys back, all or none. `accept`: even if somebody else had one in between. */
  takeBack(
    running: RunningGuest,
    keys: readonly GivenUpKey[],
    changes: "refuse" | "accept",
  ): Promise<TakeBackOutcome>;
  /** How keys of a running guest are held, and their generations: what a pause would have to remember. */
  inquire(running: RunningGuest, keys: readonly string[]): Promise<GivenUpKey[]>;
}

/** What a driver may tell. Of what it does not tell, the manager takes for granted that it cannot be known. */
export interface TellingMethods {
  /** What `acquire` would meet now; takes nothing. Without it a dry run is refused. */
  forecast(guest: Guest | undefined, resources: readonly ResolvedResource[]): Forecast[];
  /** Who has a resource. */
  inspect(resource: ResolvedResource): Inspection;
  /**
   * For each claim, in order, whether its process holds each lock, and in the mode that it was granted in, by the
   * kernel's word. One pass for all.
   */
  evidence(claims: readonly CarrierClaim[]): LockEvidence[][];
  /**
   * All locks that processes of this host hold, or some of them, in one pass over them. Without it no guest's fork is
   * followed.
   */
  holdings(pids?: readonly number[]): Holding[];
  /** The guests of this host that left notes beside these keys. Without it a lost record stays lost. */
  notedGuests(keys: readonly string[]): NotedGuest[];
  /** Whether anybody holds one of these keys. */
  isHeld(keys: readonly string[]): Known;
  /** Keys that a resource is locked by; none where the driver takes no lock on it. A must for who locks resources. */
  keysOf(resource: ResolvedResource): string[];
}

/** What a driver may do to mend what was lost or cut off. Without these methods it stays so, and is told. */
export interface MendingMethods {
  /**
   * Takes locks that a running guest has lost again, all or none, unless somebody else has or had one since they were
   * granted. Without this method a lost lock stays lost.
   */
  regain?(running: RunningGuest, keys: readonly string[]): Promise<RegainOutcome>;
  /**
   * Closes what a command that was cut off has left in a guest's processes: descriptors in QEMU, holders. Never unlocks:
   * a process that inherited them may be another guest. Takes the guest's notes about their keys away.
   */
  discard?(running: RunningGuest, strays: readonly Holding[]): Promise<void>;
}

/** What a driver may offer to those who look at its locks all the time. */
export interface WatchingMethods {
  /** Without this method every guest is looked at exactly each time. */
  watchLocks?(): Promise<LockWatch>;
}

/** A driver with all methods, as the manager works with it; only what changes access, mends or watches may be missing. */
export interface Driver
  extends
    CoreMethods,
    HotplugMethods,
    AccessMethods,
    PauseMethods,
    MigrationMethods,
    TellingMethods,
    MendingMethods,
    WatchingMethods {}

/** A driver as it may be written: what it leaves out the manager fills in, with refusals and with "not known". */
export type PartialDriver = CoreMethods & Partial<Driver>;

interface Definition<Hotplug extends boolean, Pause extends boolean, Migrating extends boolean> {
  name: string;
  capabilities: DriverCapabilities & { hotplug: Hotplug; pause: Pause; migration: Migrating };
  create(
    config: DriverConfig,
  ):
    & CoreMethods
    & Partial<TellingMethods>
    & (Hotplug extends true ? HotplugMethods : unknown)
    & (Pause extends true ? PauseMethods : unknown)
    & (Migrating extends true ? MigrationMethods : unknown);
}

type DefinitionWith<Migrating extends boolean> =
  | Definition<true, true, Migrating>
  | Definition<true, false, Migrating>
  | Definition<false, true, Migrating>
  | Definition<false, false, Migrating>;

/** A driver module's default export. Who declares an ability has its methods. */
export type DriverDefinition = DefinitionWith<true> | DefinitionWith<false>;
