import type { Access, LockMode } from "../access.ts";
import type { LockspaceLocation } from "../lockspace/lockspace.ts";
import type { ResolvedResource, ResourceType } from "../identity/resource.ts";
import type { ProcessIdentity } from "../process/process_identity.ts";
import type { Slot } from "../lockspace/slot.ts";
import type { LockWatch } from "./lock_watch.ts";
import type { Migration, MigrationMethods } from "./migration.ts";

export type { ResolvedResource, ResourceType } from "../identity/resource.ts";
export type { LockDoubt, LockWatch, WatchedGuest } from "./lock_watch.ts";

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

/** A guest as a driver sees it. */
export interface Guest {
  uuid: string;
  name: string;
  id: string | null;
  qmp: string | null;
  onLockFailure: OnLockFailure;
}

/** What becomes of a guest whose lock was lost and cannot be had back. */
export type OnLockFailure = "pause" | "kill" | "ignore";

/** Whether a lock is held; null means that it cannot be known from here. */
export type Known = boolean | null;

/** Who holds a resource. A field is null when nobody can tell. */
export interface Holder {
  uuid: string | null;
  name: string | null;
  pid: number | null;
  host: string | null;
  access: Access | null;
  since: string | null;
  alive: Known;
}

/** One key with the descriptors that hold its slots in the carrier. */
export interface CarriedLock {
  key: string;
  slots: Partial<Record<Slot, number>>;
}

/**
 * A process whose descriptors hold locks of a guest. `guest`: the guest's own process, with what it was started with.
 * `monitor`: the same process, with what QEMU was handed later through its monitor. `holder`: a tiny process beside it
 * that has what was locked after the start.
 */
export interface Carrier extends ProcessIdentity {
  kind: "guest" | "monitor" | "holder";
  locks: CarriedLock[];
}

/** A guest that runs. */
export interface RunningGuest {
  guest: Guest;
  /** The guest's own process. */
  process: ProcessIdentity;
  carriers: readonly Carrier[];
  resources: readonly { type: ResourceType; name: string; access: Access; keys: string[] }[];
  /** How its keys were granted, as far as its record tells. */
  grants: readonly GrantedKey[];
}

/** How a key was granted to a guest: by this a lost lock is told from one that somebody else has had since. */
export interface GrantedKey {
  key: string;
  mode: LockMode;
  /** The key's generation from this grant on. */
  generation: number;
}

/** What asking for more resources of a running guest gave. */
export type PlugOutcome =
  | { outcome: "granted"; carrier: Carrier; grants?: readonly GrantedKey[] }
  | { outcome: "refused"; refusal: Refusal };

/** What asking for another access to what a running guest holds gave: all of it, or nothing has changed. */
export type AccessOutcome =
  /** A key that was to become weaker and is not held any more is not among the grants, and is left as it is. */
  | { outcome: "changed"; grants: readonly GrantedKey[] }
  | { outcome: "refused"; refusal: Refusal }
  /** A key that was to become stronger is not held any more. */
  | { outcome: "lost"; key: string };

/** What asking for the locks of a guest that runs already gave. */
export type AdoptOutcome =
  | { outcome: "granted"; carrier: Carrier; leaseKeys: string[]; grants?: readonly GrantedKey[] }
  | { outcome: "refused"; refusal: Refusal };

/** What became of keys that were to be given up. */
export interface UnplugOutcome {
  /** The carriers that still hold something, with what they hold. */
  carriers: Carrier[];
  /** Keys that no carrier held any more. */
  missing: string[];
}

/** A key that a paused guest has given up, with what it takes to have it back. */
export interface GivenUpKey {
  key: string;
  mode: LockMode;
  /** If it has grown by then, somebody else had the key in between. */
  generation: number;
}

/** What asking for given-up keys gave. */
export type TakeBackOutcome =
  /** `carriers` where they are others than before. */
  | { outcome: "taken"; grants?: readonly GrantedKey[]; carriers?: Carrier[] }
  | { outcome: "refused"; key: string; holders: Holder[] }
  /** Somebody had the key in between; `had` is the last who left a note, if any. Nothing is held. */
  | { outcome: "changed"; key: string; generation: number; had: Holder | null }
  | { outcome: "lost"; key: string };

/** What asking for locks that a running guest has lost gave: it has all of them again, or none was taken. */
export type RegainOutcome =
  | { outcome: "regained"; carriers: Carrier[]; grants: readonly GrantedKey[] }
  /** Somebody has the key now. */
  | { outcome: "refused"; key: string; holders: Holder[] }
  /** Somebody had the key in between; `had` is the last who did, if that is known. */
  | { outcome: "changed"; key: string; generation: number; had: Holder | null }
  /** How the key was granted is not known, so nobody can tell. */
  | { outcome: "unknown"; key: string };

/** Locks just taken, still in our own process. */
export interface Hold {
  /** The descriptors that `locks` names are made to survive execve(2): the program that we become holds them. */
  locks: CarriedLock[];
  grants?: readonly GrantedKey[];
  /** Further descriptors that the program gets, with nothing locked in them yet. */
  unlocked?: readonly number[];
  /** Keys of the lease that the guest has on itself. */
  leaseKeys: string[];
  /** Gives everything back, notes included. */
  giveBack(): void;
}

/** Why a guest may not have its resources now. */
export interface Refusal {
  resource: { type: ResourceType; name: string; access: Access };
  holders: Holder[];
}

/** What asking for a guest's resources gave: all of them, or none and the reason. */
export type AcquireOutcome = { outcome: "granted"; hold: Hold } | { outcome: "refused"; refusal: Refusal };

/** What a driver can tell of a resource without touching it. */
export interface Inspection {
  locked: Known;
  /** How often it was granted exclusively, or null when it never was. */
  generation: number | null;
  holders: Holder[];
  /** Files that do not parse, each with what is wrong. */
  warnings: string[];
}

/** What a driver would do with a resource now. */
export interface Forecast {
  resource: ResolvedResource;
  /** `skipped`: readonly disks are not locked, by configuration; or the driver takes no locks. */
  verdict: "free" | "refused" | "skipped";
  holders: Holder[];
}

/** What the kernel shows of a lock that a record names. */
export interface LockEvidence {
  key: string;
  held: Known;
  /** The same slot by slot, of those that the claim names: another carrier may have the other one. */
  slots?: Partial<Record<Slot, Known>>;
}

/**
 * A process with the locks that the kernel shows in its own descriptors. Where it shows none on the filesystem, what is
 * open counts, and `proof` is `open`.
 */
export type Holding =
  & {
    process: ProcessIdentity;
    locks: CarriedLock[];
    proof?: "locked" | "open";
    /** How the keys are locked, where the kernel shows it; `mixed` when one slot is locked otherwise than the other. */
    modes?: ReadonlyMap<string, LockMode | "mixed">;
  }
  & (
    /** The tiny process beside a guest; `guestPid` is whom its pidfd is on, undefined when that has ended. */
    | { kind: "holder"; guestPid: number | undefined }
    /** A guest, or what inherited its descriptors. */
    | { kind: "other" }
  );

/** A guest of this host as its notes beside some keys tell of it. */
export interface NotedGuest {
  guest: Guest;
  process: ProcessIdentity;
  since: string;
  /** Keys of the lease that it has on itself. */
  leaseKeys: string[];
  /** What it still has by its notes: released resources are not among them. */
  resources: readonly { type: ResourceType; name: string; access: Access; keys: string[] }[];
  /** What it took together with the others and has no notes of any more: released, or given up by a pause. */
  withoutNotes: readonly { type: ResourceType; name: string }[];
  /** How it was granted its keys, as far as its notes tell. */
  grants?: readonly GrantedKey[];
  /** What a pause gave up, and it has not taken back. */
  givenUp?: readonly GivenUpKey[];
  /** It is on its way to or from another host. */
  migration?: Migration;
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

/** A lock that a process is said to carry; `mode` is how it was granted, where that is known. */
export interface ClaimedLock extends CarriedLock {
  mode?: LockMode | undefined;
}

/** A process with the locks that it is said to carry. */
export interface CarrierClaim {
  pid: number;
  kind: Carrier["kind"];
  locks: ClaimedLock[];
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
