import type { Access } from "../access.ts";
import type { ResolvedResource, ResourceType } from "../identity/resource.ts";
import type { CarriedLock, Carrier, GrantedKey, Holder, Known } from "./guest.ts";

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

/** What asking for the locks of a guest that runs already gave. */
export type AdoptOutcome =
  | { outcome: "granted"; carrier: Carrier; leaseKeys: string[]; grants?: readonly GrantedKey[] }
  | { outcome: "refused"; refusal: Refusal };

/** What asking for more resources of a running guest gave. */
export type PlugOutcome =
  | { outcome: "granted"; carrier: Carrier; grants?: readonly GrantedKey[] }
  | { outcome: "refused"; refusal: Refusal };

/** What became of keys that were to be given up. */
export interface UnplugOutcome {
  /** The carriers that still hold something, with what they hold. */
  carriers: Carrier[];
  /** Keys that no carrier held any more. */
  missing: string[];
}

/** What asking for another access to what a running guest holds gave: all of it, or nothing has changed. */
export type AccessOutcome =
  /** A key that was to become weaker and is not held any more is not among the grants, and is left as it is. */
  | { outcome: "changed"; grants: readonly GrantedKey[] }
  | { outcome: "refused"; refusal: Refusal }
  /** A key that was to become stronger is not held any more. */
  | { outcome: "lost"; key: string };

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
