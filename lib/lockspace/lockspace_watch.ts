import type { LockDoubt, LockWatch, WatchedGuest } from "../driver/contract.ts";
import { LockTable } from "../process/lock_table.ts";
import { doubtsOf, withStanding } from "./lock_doubts.ts";
import { isSameProof, type LockProof, type ProofContext, proveLocks } from "./lock_proof.ts";
import type { Lockspace } from "./lockspace.ts";
import { LockspaceNames } from "./lockspace_names.ts";

/**
 * The first look at the guests of a lockspace. A pass in which nothing has changed is one reading of the kernel's table
 * of locks and one status of the lockspace. Where the kernel shows no locks of the filesystem, the names are all that
 * it can tell, and nobody is vouched for.
 */
export class LockspaceWatch implements LockWatch {
  readonly #lockspace: Lockspace;
  readonly #names: LockspaceNames;
  readonly #table = new LockTable();
  readonly #proofs = new Map<string, LockProof>();
  /** Who was in doubt and is not confirmed since, with the cause; there is no proof of theirs any more. */
  readonly #standing = new Map<string, LockDoubt>();
  /** What was looked at when nobody was in doubt: while it is the same, nobody is. */
  #untroubled: { table: ProofContext["table"]; round: number; guests: ReadonlySet<WatchedGuest> } | undefined;

  /** @param clock milliseconds of a clock that only goes forward */
  constructor(lockspace: Lockspace, clock: () => number = () => performance.now()) {
    this.#lockspace = lockspace;
    this.#names = new LockspaceNames(lockspace, clock);
  }

  async doubts(guests: readonly WatchedGuest[]): Promise<LockDoubt[]> {
    const watched = new Set(guests.map(({ uuid }) => uuid));
    for (const known of [this.#proofs, this.#standing]) {
      for (const uuid of known.keys()) if (!watched.has(uuid)) known.delete(uuid);
    }
    const now = await this.#look();
    const { round } = this.#names;
    const before = this.#untroubled;
    if (
      before?.table === now.table && before.round === round &&
      guests.every((guest) => before.guests.has(guest))
    ) return [];
    const fresh = doubtsOf(guests, this.#proofs, now)
      .filter(({ uuid, cause }) => cause !== "lock" || !this.#stillHolds(uuid, now));
    const doubts = withStanding(fresh, this.#standing);
    for (const doubt of doubts) {
      if (doubt.cause === "not-shown") continue; // where no lock is shown, none can stand in for another
      this.#standing.set(doubt.uuid, doubt);
      this.#proofs.delete(doubt.uuid);
    }
    const isUntroubled = doubts.length === 0 && now.table !== "hidden";
    this.#untroubled = isUntroubled ? { table: now.table, round, guests: new Set(guests) } : undefined;
    return doubts;
  }

  /**
   * Looks into the processes of a guest whose locks the table does not have as often as when they were proven. Mostly it
   * is others who lock and unlock: in a file that the guest shares, or anywhere while the table was read.
   */
  #stillHolds(uuid: string, now: ProofContext): boolean {
    const before = this.#proofs.get(uuid)!;
    const again = proveLocks(before.guest, now);
    if ("cause" in again || !isSameProof(before, again)) return false;
    this.#proofs.set(uuid, again);
    return true;
  }

  async confirm(guests: readonly WatchedGuest[]): Promise<LockDoubt[]> {
    if (guests.length === 0) return [];
    this.#untroubled = undefined;
    const now = await this.#look();
    return guests.flatMap((guest) => {
      const result = proveLocks(guest, now);
      this.#standing.delete(guest.uuid);
      if ("cause" in result) {
        this.#proofs.delete(guest.uuid);
        return [result];
      }
      this.#proofs.set(guest.uuid, result);
      return [];
    });
  }

  async #look(): Promise<ProofContext> {
    await this.#names.begin();
    return {
      table: this.#lockspace.evidence === "shown" ? this.#table.read() : "hidden",
      leadsTo: (name) => this.#names.leadsTo(name),
    };
  }
}
