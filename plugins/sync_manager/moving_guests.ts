import { leaveKeys, lookAtOtherSide, takeOverSlots } from "../../lib/carrier/migration_destination.ts";
import { type LeavingGuest, makeTicket, offerSlots } from "../../lib/carrier/migration_source.ts";
import { withdrawSlots } from "../../lib/carrier/migration_withdrawal.ts";
import type {
  AcquireOutcome,
  Guest,
  Holder,
  Known,
  ResolvedResource,
  RunningGuest,
} from "../../lib/driver/contract.ts";
import type {
  Departure,
  IncomingMigration,
  Migration,
  MigrationTicket,
  OutgoingMigration,
  TakeOverOutcome,
  WithdrawOutcome,
} from "../../lib/driver/migration.ts";
import { noted } from "../../lib/lockspace/grant.ts";
import { takeIncoming } from "../../lib/lockspace/incoming_grant.ts";
import { patience } from "../../lib/lockspace/key_holders.ts";
import { planKeys } from "../../lib/lockspace/key_plan.ts";
import { refuseTooManyLocks } from "../../lib/process/descriptor_numbers.ts";
import { identifySelf } from "../../lib/process/process_identity.ts";
import { guestLease, type HostLocks, NAME } from "./host_locks.ts";

/** What the flock driver does for guests that move to another host. Read only by the commands of a migration. */
export class MovingGuests {
  readonly #locks: HostLocks;

  constructor(locks: HostLocks) {
    this.#locks = locks;
  }

  makeTicket({ running, ...departure }: Departure): MigrationTicket {
    return makeTicket(this.#locks.openLockspace(), this.#moving(running), departure);
  }

  async offer(running: RunningGuest, ticket: MigrationTicket, migration: OutgoingMigration): Promise<void> {
    await offerSlots(this.#locks.openLockspace(), this.#moving(running), ticket, migration);
  }

  async acquireIncoming(
    guest: Guest,
    ticket: MigrationTicket,
    resources: readonly ResolvedResource[],
  ): Promise<AcquireOutcome> {
    const lockspace = this.#locks.openLockspace();
    const lease = guestLease(guest);
    const wanted = resources.map((each) => this.#locks.isLocked(each) ? each : { ...each, identities: [] });
    this.#locks.objectToLocalLockspace(lockspace, wanted);
    refuseTooManyLocks(planKeys([lease, ...wanted]).length * 2);
    const grantee = { guest, process: identifySelf(), host: this.#locks.config.host, plugin: NAME };
    const judge = patience();
    while (true) {
      const result = takeIncoming(lockspace, { ...grantee, ticket, lease, resources: wanted });
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

  takeOver(running: RunningGuest, migration: IncomingMigration): TakeOverOutcome {
    return takeOverSlots(this.#locks.openLockspace(), this.#moving(running), migration);
  }

  async withdraw(
    running: RunningGuest,
    confirm: () => Promise<"keep" | "decline">,
  ): Promise<WithdrawOutcome> {
    return await withdrawSlots(this.#locks.openLockspace(), this.#moving(running), confirm);
  }

  otherSide(running: RunningGuest, migration: Migration): { held: Known; holders: Holder[] } {
    return lookAtOtherSide(this.#locks.openLockspace(), this.#moving(running), migration);
  }

  leave(running: RunningGuest, migration: Migration): void {
    leaveKeys(this.#locks.openLockspace(), this.#moving(running), migration);
  }

  #moving(running: RunningGuest): LeavingGuest {
    const lease = guestLease(running.guest);
    const leaseKeys = lease.identities.map(({ key }) => key);
    return { ...this.#locks.grantee(running, [noted(lease), ...running.resources]), running, leaseKeys };
  }
}
