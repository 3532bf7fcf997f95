import type { AgentSettings } from "../config/agent_settings.ts";
import { LockvisorError } from "../errors.ts";
import type { SettledGuest } from "../host_lock.ts";
import type { HostSession } from "../host_session.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { EndWatch } from "../process/end_watch.ts";
import { Arrivals } from "./arrivals.ts";
import { Audit, type AuditReport } from "./audit.ts";
import { AuditTail } from "./audit_tail.ts";
import { CurrentSession, hostOf } from "./current_session.ts";
import { EndingGuests, isEndedMigration } from "./ending_guests.ts";
import type { Happening } from "./event.ts";
import { EventLog } from "./event_log.ts";
import { GuestWatch } from "./guest_watch.ts";
import { KnownDrivers } from "./known_drivers.ts";
import { LockDoubts } from "./lock_doubts.ts";
import { OpenDiskWatch } from "./open_disk_watch.ts";
import { RecordHints } from "./record_hints.ts";
import { RecordWatch } from "./record_watch.ts";
import { MOST_AT_ONCE, Turns } from "./turns.ts";

/** What the agent works with. */
export interface AgentOptions {
  openSession: () => HostSession;
  settings: Pick<AgentSettings, "auditIntervalMs" | "reconcileIntervalMs">;
  /** Told of each look at all locks, with how long it took in milliseconds. */
  audited?: (report: AuditReport, tookMs: number) => void;
}

/**
 * Watches the guests of this host: who starts, who ends, who loses a lock. Locks do not depend on it: it can be killed
 * and started again at any time.
 */
export class Agent {
  readonly events: EventLog;
  /** For what is done to guests that go on. */
  readonly changes = new Turns(MOST_AT_ONCE.change);
  /** For stops. They wait neither for other operations nor these for them, as between two commands. */
  readonly stops = new Turns(MOST_AT_ONCE.stop);
  readonly #sessions: CurrentSession;
  #settings: AgentOptions["settings"];
  readonly #audited: NonNullable<AgentOptions["audited"]>;
  readonly #guests: GuestWatch;
  readonly #ending: EndingGuests;
  readonly #audit: Audit;
  readonly #arrivals: Arrivals;
  readonly #disks: OpenDiskWatch;
  readonly #records: RecordWatch;
  #tail: AuditTail;
  readonly #drivers: KnownDrivers;
  readonly #hints: RecordHints;
  #auditDue: ReturnType<typeof setTimeout> | undefined;
  #auditing: Promise<void> | undefined;
  #auditAgain = false;
  /** Why the last look did not come to its end. */
  #fault: string | undefined;
  #lastAuditMs = performance.now();
  #ended = false;

  constructor({ openSession, settings, audited = () => {} }: AgentOptions) {
    this.#sessions = new CurrentSession(openSession);
    this.#settings = settings;
    this.#audited = audited;
    this.events = new EventLog(Date.now().toString(36));
    const { store, config } = this.session;
    const session = () => this.session;
    this.#records = new RecordWatch(store);
    this.#drivers = new KnownDrivers({
      session,
      entries: () => this.#records.entries(),
      missing: (plugin, reason) =>
        this.tell({ type: "problem", message: `guests of plugin ${plugin}: ${reason}` }),
    });
    this.#hints = new RecordHints(
      store.directory,
      (which) => this.#look(which === "all" ? "closely" : which),
    );
    const driverOf = (plugin: string) => this.#drivers.get(plugin);
    this.#tail = new AuditTail(config.lockspace.path);
    this.#guests = new GuestWatch(new EndWatch(), {
      tell: (happening) => this.tell(happening),
      processEnded: (record) => this.#ending.add(record),
      holderEnded: () => this.auditSoon(),
      recordLost: () => this.auditSoon(),
    });
    this.#ending = new EndingGuests({
      store,
      driverOf,
      ended: (record) => this.#guests.ended(record),
      undecided: (records) => this.#follow(records),
    });
    this.#audit = new Audit({
      host: hostOf(session),
      records: () => this.#guests.records(),
      driverOf,
      doubts: new LockDoubts(driverOf),
      tell: (happening) => this.tell(happening),
    });
    this.#arrivals = new Arrivals({
      session,
      driverOf,
      turns: this.changes,
      tell: (happening) => this.tell(happening),
      changed: (uuid) => this.look([uuid]),
    });
    this.#disks = new OpenDiskWatch({
      session,
      intervalMs: () => this.#settings.reconcileIntervalMs,
      turns: this.changes,
      tell: (happening) => this.tell(happening),
      changed: (uuid) => this.look([uuid]),
    });
  }

  /** The session in force. */
  get session(): HostSession {
    return this.#sessions.get();
  }

  /** The records of the guests that run, as they were seen last. */
  get records(): GuestRecord[] {
    return this.#guests.records();
  }

  /** Guests that run without a lock that they should have. */
  get bereft(): number {
    return this.#audit.lost;
  }

  /** Whether looks at the locks end as often as they should. */
  get health(): "well" | "late" {
    const late = 4 * this.#settings.auditIntervalMs + LATE_MS;
    return performance.now() - this.#lastAuditMs < late ? "well" : "late";
  }

  /** Tells everybody who listens. */
  tell(happening: Happening): void {
    this.events.tell(happening);
  }

  /** Finds all guests of this host and begins to watch them. @throws {LockvisorError} when records cannot be kept */
  async start(): Promise<void> {
    const { store, config } = this.session;
    store.prepare(config.effectiveUid);
    await this.#drivers.load();
    await this.#attachAll();
    this.#look("first");
    this.#followDisks();
    this.#hints.keepComing();
    this.#lastAuditMs = performance.now();
    this.#auditLater(this.#settings.auditIntervalMs);
  }

  /** Stops watching. Guests and their locks stay as they are. */
  async end(): Promise<void> {
    this.#ended = true;
    clearTimeout(this.#auditDue);
    this.#hints.end();
    await this.#auditing;
    await this.#disks.end();
  }

  /** Goes on with other settings, and looks at all guests with them. The directory of the records stays. */
  async reload({ openSession, settings }: Pick<AgentOptions, "openSession" | "settings">): Promise<void> {
    this.#sessions.renew(openSession);
    this.#settings = settings;
    this.#tail = new AuditTail(this.session.config.lockspace.path);
    await this.#drivers.load();
    await this.#attachAll();
    this.#look();
    if (this.#auditing === undefined) this.#auditLater(settings.auditIntervalMs);
  }

  /** A guest's record, as it was seen last. */
  record(uuid: string): GuestRecord | undefined {
    return this.#guests.record(uuid);
  }

  /** Looks at records at once: an operation has just changed them, or is about to work with them. */
  look(which: readonly string[] | "all"): void {
    this.#look(this.#hints.areComing ? which : "all");
  }

  /** Has all locks looked at as soon as possible. */
  auditSoon(): void {
    if (this.#auditing !== undefined) this.#auditAgain = true;
    else this.#auditLater(0);
  }

  /** Attaches guests as the command `attach` does, and tells what was. */
  async attach(which: ReadonlySet<string> | "all"): Promise<SettledGuest[]> {
    await this.#drivers.load();
    const guests = await this.#audit.attach(which);
    this.#look();
    return guests;
  }

  async #attachAll(): Promise<void> {
    try {
      await this.#audit.attach("all");
    } catch (error) {
      if (!(error instanceof LockvisorError)) throw error;
      // A lockspace that is cut off must not keep the agent from watching: it is tried again with each audit.
      this.tell({ type: "problem", message: `guests cannot be attached now: ${error.message}` });
    }
  }

  #look(which: readonly string[] | "all" | "closely" | "first" = "all"): void {
    try {
      const { changed, gone } = typeof which === "string"
        ? this.#records.look(which === "closely" ? "closely" : "quickly")
        : this.#records.lookAt(which);
      this.#guests.changed(changed, which === "first" ? "found" : "started");
      this.#guests.gone(gone);
      if (this.#guests.records().some(({ plugin }) => !this.#drivers.isKnown(plugin))) this.auditSoon();
    } catch (error) {
      if (!(error instanceof LockvisorError)) throw error;
      this.tell({ type: "problem", message: error.message });
    }
  }

  #auditLater(afterMs: number): void {
    clearTimeout(this.#auditDue);
    if (this.#ended) return;
    this.#auditDue = setTimeout(() => {
      this.#auditing = this.#auditNow().finally(() => {
        this.#auditing = undefined;
        this.#auditLater(this.#auditAgain ? 0 : this.#settings.auditIntervalMs);
        this.#auditAgain = false;
      });
    }, afterMs);
  }

  async #auditNow(): Promise<void> {
    const begun = performance.now();
    try {
      this.#keepPlace();
      await this.#drivers.load();
      this.#look();
      this.#hints.keepComing();
      for (const broken of this.#tail.look()) this.tell(broken);
      const unrecorded = this.#unrecorded();
      if (unrecorded.size > 0) await this.attach(unrecorded);
      const report = await this.#audit.run();
      if (report.examined > 0) this.#look();
      this.#arrivals.look(this.records);
      this.#followDisks();
      this.#audited(report, performance.now() - begun);
      this.#fault = undefined;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (this.#fault !== reason) {
        this.tell({ type: "problem", message: `locks cannot be looked at: ${reason}` });
      }
      this.#fault = reason;
      // A fault of our own: the next look may do better, and if none does, whoever watches us starts us anew.
      if (!(error instanceof LockvisorError)) return;
    }
    this.#lastAuditMs = performance.now();
  }

  #followDisks(): void {
    this.#disks.look(this.records).catch((error) =>
      this.tell({ type: "problem", message: `internal error: ${error}` })
    );
  }

  /** Guests that live and whose records are gone, or cannot be read. */
  #unrecorded(): Set<string> {
    const recorded = new Set(
      this.#records.entries().flatMap((entry) => entry.kind === "record" ? [entry.record.uuid] : []),
    );
    return new Set(this.records.map(({ uuid }) => uuid).filter((uuid) => !recorded.has(uuid)));
  }

  /** Somebody may have wiped the runtime directory. */
  #keepPlace(): void {
    const { store, config } = this.session;
    if (store.presence() === "absent") store.prepare(config.effectiveUid);
  }

  /** Guests whose processes have ended while somebody has their leases: they may have forked. */
  async #follow(records: readonly GuestRecord[]): Promise<void> {
    const uuids = new Set(records.map(({ uuid }) => uuid));
    try {
      await this.attach(uuids);
    } catch (error) {
      if (!(error instanceof LockvisorError)) throw error;
      this.tell({ type: "problem", message: error.message });
    }
    for (const record of records) {
      const entry = this.session.store.reread(record);
      if (entry === undefined || isEndedMigration(entry)) this.#guests.ended(record);
      else this.#guests.livesOn(record.uuid);
    }
  }
}

/** A busy host may take so long, in milliseconds, beside the time between two looks. */
const LATE_MS = 10_000;
