import type { Driver } from "../driver/contract.ts";
import type { IncomingMigration } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { endMigration } from "../host_migrations.ts";
import type { HostSession } from "../host_session.ts";
import { runningGuest } from "../manager/attached_record.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import type { Happening } from "./event.ts";
import { eventGuest } from "./record_changes.ts";
import type { Turns } from "./turns.ts";

/** What finishing migrations works with. */
export interface ArrivalContext {
  session(): HostSession;
  driverOf(plugin: string): Driver | undefined;
  /** For what is done to guests that go on. */
  turns: Turns;
  tell(happening: Happening): void;
  /** The record of a guest is another one now. */
  changed(uuid: string): void;
}

type Arrived = GuestRecord & { migration: IncomingMigration };

/**
 * Ends the migrations of guests that have come and lack only the slots that the source has had: they get them as soon as it
 * has let go, as by `migrate complete` once more.
 */
export class Arrivals {
  readonly #context: ArrivalContext;
  readonly #atWork = new Set<string>();
  /** What was told of guests that cannot be dealt with: the same is not told again at each look. */
  readonly #problems = new Map<string, string>();

  constructor(context: ArrivalContext) {
    this.#context = context;
  }

  /** Looks at those of these guests that have come. Nobody waits for what is done then. */
  look(records: readonly GuestRecord[]): void {
    const arrived = records.flatMap((record): Arrived[] =>
      record.migration?.role === "in" && record.migration.arrived
        ? [{ ...record, migration: record.migration }]
        : []
    );
    const uuids = new Set(arrived.map(({ uuid }) => uuid));
    for (const uuid of this.#problems.keys()) if (!uuids.has(uuid)) this.#problems.delete(uuid);
    for (const record of arrived) {
      if (this.#atWork.has(record.uuid)) continue;
      this.#atWork.add(record.uuid);
      this.#finish(record).catch((error) => this.#told(record, error))
        .finally(() => this.#atWork.delete(record.uuid));
    }
  }

  async #finish(record: Arrived): Promise<void> {
    const { session, driverOf, turns, changed } = this.#context;
    const driver = driverOf(record.plugin);
    // Mostly the source has its slots still: then nobody's monitor and lock file is touched.
    const other = await driver?.otherSide(runningGuest(record), record.migration);
    if (other === undefined || other.held === true) return;
    await turns.of(record.uuid, () => endMigration(session(), record, { action: "complete", waitMs: 0 }));
    this.#problems.delete(record.uuid);
    changed(record.uuid);
  }

  #told(record: GuestRecord, error: unknown): void {
    const reason = error instanceof LockvisorError ? error.message : `internal error: ${error}`;
    if (this.#problems.get(record.uuid) === reason) return;
    this.#problems.set(record.uuid, reason);
    const message = `guest "${record.name}": its migration cannot be completed now: ${reason}`;
    this.#context.tell({ type: "problem", guest: eventGuest(record), message });
  }
}
