import type { LockMode } from "../access.ts";
import type { CarrierClaim } from "./guest.ts";

/** A guest as its locks are watched. */
export interface WatchedGuest {
  uuid: string;
  /** What it should hold: not what a pause or a release gives up. `mode` is null where it is not known. */
  keys: readonly { key: string; mode: LockMode | null }[];
  /** Its carriers, as `evidence` is asked. */
  claims: readonly CarrierClaim[];
}

/** A guest that is not vouched for. */
export interface LockDoubt {
  uuid: string;
  /**
   * `unproven`: it was not confirmed yet, or could not be. `changed`: what it should hold, or who carries it, is not
   * what was confirmed. `name`: a name in the lockspace does not lead to the file that it led to. `lock`: the kernel
   * does not show a lock as it was. `mode`: a lock is of another mode than it was granted in. `not-shown`: nothing of
   * that, and of its locks nothing can be told without an exact look.
   */
  cause: "unproven" | "changed" | "name" | "lock" | "mode" | "not-shown";
  /** The key that it is about, where it is about one. */
  key?: string;
}

/**
 * A cheap first look at all guests again and again, which tells whom `evidence` has to be asked about. Whoever is not in
 * doubt still holds every lock that was confirmed.
 */
export interface LockWatch {
  /** Those of all guests that are watched who are not vouched for. Who is not among them any more is forgotten. */
  doubts(guests: readonly WatchedGuest[]): Promise<LockDoubt[]>;
  /**
   * Takes for proven what these guests hold now, after `evidence` has shown all of it. Looks for itself what to compare
   * with from now on, and gives those in whom it does not find it: they stay in doubt.
   */
  confirm(guests: readonly WatchedGuest[]): Promise<LockDoubt[]>;
}
