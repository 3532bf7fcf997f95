import type { EndWatch, WatchedProcess } from "../process/end_watch.ts";
import { isSameProcess, lifeOf } from "../process/process_identity.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import type { RecordEntry } from "../manager/guest_store.ts";
import type { Happening } from "./event.ts";
import { endText } from "./migration_changes.ts";
import { changesOf, eventGuest, foundGuest, isFork, isSameStart } from "./record_changes.ts";

/** Who is told of what becomes of guests. */
export interface GuestListener {
  tell(happening: Happening): void;
  /** The process of a guest has ended; that the guest has is to be proved: it may have forked. */
  processEnded(record: GuestRecord): void;
  /** A holder of a guest that lives has ended: its locks are to be looked at. */
  holderEnded(uuid: string): void;
  /** The record of a guest that lives is gone, or cannot be read. */
  recordLost(uuid: string): void;
}

interface WatchedGuest {
  record: GuestRecord;
  processes: WatchedProcess[];
}

/** The guests that run here, by their records, with a watch on each process that has locks of theirs. */
export class GuestWatch {
  readonly #watch: EndWatch;
  readonly #listener: GuestListener;
  readonly #guests = new Map<string, WatchedGuest>();
  /** Guests whose end is being proved. */
  readonly #ending = new Set<string>();

  constructor(watch: EndWatch, listener: GuestListener) {
    this.#watch = watch;
    this.#listener = listener;
  }

  /** The records of the guests that run, as they were seen last. */
  records(): GuestRecord[] {
    return [...this.#guests.values()].map(({ record }) => record);
  }

  record(uuid: string): GuestRecord | undefined {
    return this.#guests.get(uuid)?.record;
  }

  /**
   * Takes in records that are new or others than before.
   * @param news how guests are told that were not known: as having run before we looked, or as having started since
   */
  changed(entries: readonly RecordEntry[], news: "found" | "started"): void {
    for (const entry of entries) {
      if (entry.kind === "record") this.#update(entry.record, news);
      else if (this.#guests.has(entry.uuid)) this.#listener.recordLost(entry.uuid);
    }
  }

  /** Takes in that records are gone: with their guests, or although they live. */
  gone(uuids: readonly string[]): void {
    for (const uuid of uuids) {
      const guest = this.#guests.get(uuid);
      if (guest === undefined) continue;
      if (lifeOf(guest.record.carriers[0]) === "dead") this.ended(guest.record);
      else this.#listener.recordLost(uuid);
    }
  }

  /** A guest has ended for certain. Told once, however many notice. */
  ended(record: GuestRecord): void {
    const guest = this.#guests.get(record.uuid);
    this.#ending.delete(record.uuid);
    if (guest === undefined || !isSameStart(guest.record, record)) return;
    this.#forget(guest);
    this.#guests.delete(record.uuid);
    this.#listener.tell({ type: "guest-ended", guest: eventGuest(record), message: endText(guest.record) });
  }

  /** A guest whose process has ended goes on in another one, or it cannot be told. */
  livesOn(uuid: string): void {
    this.#ending.delete(uuid);
  }

  #update(record: GuestRecord, news: "found" | "started"): void {
    const before = this.#guests.get(record.uuid);
    const isSame = before !== undefined && isSameStart(before.record, record);
    // A fork that was followed is the same guest, although its process is another.
    const isFollowed = before !== undefined && !isSame && isFork(before.record, record);
    if (before !== undefined && !isSame && !isFollowed) this.ended(before.record);
    const known = this.#guests.get(record.uuid);
    const isFound = known === undefined && news === "found";
    const happenings = isFound ? [foundGuest(record)] : changesOf(known?.record, record);
    for (const happening of happenings) this.#listener.tell(happening);
    if (known !== undefined) this.#forget(known);
    const guest: WatchedGuest = { record, processes: [] };
    this.#guests.set(record.uuid, guest);
    this.#watchProcesses(guest);
  }

  #watchProcesses(guest: WatchedGuest): void {
    const { record } = guest;
    const [own] = record.carriers;
    const processes = [...new Map(record.carriers.map((carrier) => [carrier.pid, carrier])).values()];
    for (const process of processes) {
      const isGuest = isSameProcess(process, own);
      const ended = () => isGuest ? this.#processEnded(record) : this.#listener.holderEnded(record.uuid);
      const outcome = this.#watch.watch(process, ended);
      if (outcome.kind === "watched") guest.processes.push(outcome.watched);
      else if (outcome.kind === "ended") ended();
    }
  }

  #processEnded(record: GuestRecord): void {
    if (this.#ending.has(record.uuid)) return;
    this.#ending.add(record.uuid);
    this.#listener.processEnded(record);
  }

  #forget(guest: WatchedGuest): void {
    for (const process of guest.processes) process.forget();
    guest.processes = [];
  }
}
