import type { Access, LockMode } from "../access.ts";
import type { ResourceType } from "../identity/resource.ts";
import type { Slot } from "../lockspace/slot.ts";
import type { ProcessIdentity } from "../process/process_identity.ts";
import type { Migration } from "./migration.ts";

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
  /** `followed`: nobody has named it by hand. */
  resources: readonly {
    type: ResourceType;
    name: string;
    access: Access;
    keys: string[];
    followed?: true;
  }[];
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

/** A key that a paused guest has given up, with what it takes to have it back. */
export interface GivenUpKey {
  key: string;
  mode: LockMode;
  /** If it has grown by then, somebody else had the key in between. */
  generation: number;
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
