import { LockvisorError } from "../errors.ts";
import { reconcileGuest, type ReconcileReport } from "../guest_reconcile.ts";
import type { HostSession } from "../host_session.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { printOfOpenFiles } from "../process/open_names.ts";
import { isSameProcess } from "../process/process_identity.ts";
import type { Happening } from "./event.ts";
import { QemuEvents } from "./qemu_events.ts";
import { eventGuest } from "./record_changes.ts";
import type { Turns } from "./turns.ts";

/** What following the disks of guests works with. */
export interface OpenDiskContext {
  session(): HostSession;
  /** How long a guest goes without a comparison, in milliseconds. */
  intervalMs(): number;
  /** For what is done to guests that go on. */
  turns: Turns;
  tell(happening: Happening): void;
  /** The record of a guest may be another one now. */
  changed(uuid: string): void;
}

/** Monitors of so many guests are asked at a time: when the agent starts, all are due. */
const MOST_AT_ONCE = 4;

/**
 * How long a monitor may not answer before that is a problem, in milliseconds: a QEMU that starts does not listen yet, and
 * somebody else may talk to it.
 */
const PATIENCE_MS = 20_000;

/** A look at a process takes 80 microseconds with 20 descriptors: in between others have their turn. */
const AT_A_STRETCH = 50;

interface FollowedGuest {
  record: GuestRecord;
  /** Stands for what its process has open; undefined when that could not be seen. */
  print: number | undefined;
  /** When it is compared at the latest, by `performance.now()`. */
  dueMs: number;
  state: "idle" | "queued" | "under-way" | "under-way and due again";
  /** Since when its monitor has not answered, by `performance.now()`; undefined when it did so last. */
  unansweredSinceMs: number | undefined;
  /** What was told of it: the same is not told again at each look. */
  told: ReadonlySet<string>;
}

/**
 * Has the locks of guests follow what their QEMUs really have open, whoever changed that: as soon as QEMU tells it, where it
 * can; at the next look after its process has opened or closed a file; and from time to time in any case.
 */
export class OpenDiskWatch {
  readonly #context: OpenDiskContext;
  readonly #guests = new Map<string, FollowedGuest>();
  readonly #queue: string[] = [];
  readonly #events = new QemuEvents((uuid) => this.#due(uuid));
  readonly #underWay = new Set<Promise<void>>();
  #isLooking = false;
  #isEnding = false;

  constructor(context: OpenDiskContext) {
    this.#context = context;
  }

  /** Looks at guests, unless that is being done. Nobody waits for what is done then. */
  async look(records: readonly GuestRecord[]): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      await this.#lookAt(records);
    } finally {
      this.#isLooking = false;
    }
  }

  async #lookAt(records: readonly GuestRecord[]): Promise<void> {
    const followed = records.filter(isFollowed);
    const uuids = new Set(followed.map(({ uuid }) => uuid));
    for (const uuid of this.#guests.keys()) if (!uuids.has(uuid)) this.#guests.delete(uuid);
    this.#events.watch(followed);
    const now = performance.now();
    const lockspace = this.#context.session().config.lockspace.path;
    for (const [index, record] of followed.entries()) {
      if (index % AT_A_STRETCH === AT_A_STRETCH - 1) await new Promise((resolve) => setTimeout(resolve));
      if (this.#isEnding) return;
      const guest = this.#known(record);
      const print = printOfOpenFiles(record.carriers[0].pid, lockspace);
      const isChanged = print !== undefined && print !== guest.print;
      guest.print = print ?? guest.print;
      if (isChanged || now >= guest.dueMs) this.#due(record.uuid);
    }
  }

  /** Stops following, when what is being done is done. */
  async end(): Promise<void> {
    this.#isEnding = true;
    await Promise.all([this.#events.end(), ...this.#underWay]);
  }

  #known(record: GuestRecord): FollowedGuest {
    const known = this.#guests.get(record.uuid);
    if (known !== undefined && isSameProcess(known.record.carriers[0], record.carriers[0])) {
      known.record = record;
      return known;
    }
    const guest: FollowedGuest = {
      record,
      print: undefined,
      dueMs: performance.now(),
      state: "idle",
      unansweredSinceMs: undefined,
      told: new Set(),
    };
    this.#guests.set(record.uuid, guest);
    return guest;
  }

  #due(uuid: string): void {
    const guest = this.#guests.get(uuid);
    if (guest?.state === "under-way") guest.state = "under-way and due again";
    if (guest?.state !== "idle") return;
    guest.state = "queued";
    this.#queue.push(uuid);
    this.#next();
  }

  #next(): void {
    while (!this.#isEnding && this.#underWay.size < MOST_AT_ONCE) {
      const uuid = this.#queue.shift();
      if (uuid === undefined) return;
      const guest = this.#guests.get(uuid);
      if (guest?.state !== "queued") continue;
      guest.state = "under-way";
      const work = this.#reconcile(guest).finally(() => {
        this.#underWay.delete(work);
        const isDueAgain = guest.state === "under-way and due again";
        guest.state = "idle";
        if (isDueAgain && this.#guests.get(uuid) === guest) this.#due(uuid);
        this.#next();
      });
      this.#underWay.add(work);
    }
  }

  async #reconcile(guest: FollowedGuest): Promise<void> {
    const { session, turns, changed, intervalMs } = this.#context;
    const { record } = guest;
    try {
      const report = await turns.of(record.uuid, () => reconcileGuest(session(), record));
      const isUnanswered = record.qmp !== null && report.source === "proc";
      guest.unansweredSinceMs = isUnanswered ? guest.unansweredSinceMs ?? performance.now() : undefined;
      const isPassing = isUnanswered && performance.now() - guest.unansweredSinceMs! < PATIENCE_MS;
      this.#tell(guest, problemsOf(report, isPassing ? "failures" : "all"));
    } catch (error) {
      if (this.#guests.get(record.uuid) !== guest) return; // it has ended meanwhile
      this.#tell(guest, [error instanceof LockvisorError ? error.message : `internal error: ${error}`]);
    } finally {
      guest.dueMs = performance.now() + intervalMs();
      changed(record.uuid);
    }
  }

  /** Whether a guest has begun meanwhile what nothing is compared during: what failed then is no fault. */
  #hasLeftOff(record: GuestRecord): boolean {
    const entry = this.#context.session().store.reread(record);
    return entry?.kind === "record" && !isFollowed(entry.record);
  }

  #tell(guest: FollowedGuest, texts: readonly string[]): void {
    const { record, told } = guest;
    if (texts.length > 0 && this.#hasLeftOff(record)) return;
    for (const text of texts) {
      if (told.has(text)) continue;
      const message = `guest "${record.name}": ${text}`;
      this.#context.tell({ type: "problem", guest: eventGuest(record), message });
    }
    guest.told = new Set(texts);
  }
}

/** What nobody else tells: what a guest has got, given up or goes without is told by its record. */
function problemsOf({ disks, warnings }: ReconcileReport, which: "all" | "failures"): string[] {
  const failed = disks.flatMap((disk) =>
    disk.result === "failed"
      ? [`QEMU has disk ${disk.name} open, and its lock cannot be set right: ${disk.error.message}`]
      : []
  );
  return which === "all" ? [...warnings, ...failed] : failed;
}

/** A guest on its way has its own order, and one that has given its locks up takes nothing before it resumes. */
function isFollowed({ qmp, resources, migration, givenUp }: GuestRecord): boolean {
  if (migration !== undefined || givenUp.length > 0) return false;
  return qmp !== null || resources.some(({ followed }) => followed);
}
