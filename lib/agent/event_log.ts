import { printable } from "../errors.ts";
import type { AgentEvent, Happening } from "./event.ts";

/** Events that are kept for those who come later, or come back. */
const KEPT = 1000;
/** Events that may wait for one reader; whoever is slower misses some, and is told so. */
const MOST_WAITING = 1000;

/** Where a reader begins. `after`: behind the event of this id. `last`: with so many of the past. */
export type Beginning = { kind: "now" } | { kind: "after"; id: string } | { kind: "last"; count: number };

/** What waits for one reader. */
interface Reader {
  waiting: AgentEvent[];
  /** How many had to go before they were read. */
  missed: number;
  wake(): void;
}

/** The last events, and those who read them. */
export class EventLog {
  readonly #epoch: string;
  readonly #kept: AgentEvent[] = [];
  readonly #listeners = new Set<(event: AgentEvent) => void>();
  readonly #readers = new Set<Reader>();
  #ending: (() => void) | undefined;
  #count = 0;

  /** @param epoch tells this agent's events from those of an earlier one: its start, say */
  constructor(epoch: string) {
    this.#epoch = epoch;
  }

  /** Tells everybody. */
  tell(happening: Happening): AgentEvent {
    const event = this.#numbered(happening, ++this.#count);
    this.#kept.push(event);
    if (this.#kept.length > KEPT) this.#kept.shift();
    for (const listener of [...this.#listeners]) listener(event);
    return event;
  }

  /** Calls back with each event from now on, before `tell` returns. @returns what ends it */
  listen(listener: (event: AgentEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Ends all readers as soon as they have read what was told. Resolves then, or when that takes too long. */
  async end(graceMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ended = new Promise<void>((resolve) => {
      this.#ending = resolve;
      timer = setTimeout(resolve, graceMs);
    });
    if (this.#readers.size === 0) this.#ending?.();
    for (const reader of this.#readers) reader.wake();
    await ended;
    clearTimeout(timer);
  }

  /** The last events, the oldest first. */
  last(count: number): AgentEvent[] {
    return count <= 0 ? [] : this.#kept.slice(-count);
  }

  /**
   * Events from a beginning on, until {@linkcode end} is called: all that are told after this call, whenever they are
   * read. Where some are not kept any more, because the reader was away for too long, was too slow, or knew another life
   * of the agent, an event `events-missed` stands in their place.
   * @param signal ends it
   */
  follow(beginning: Beginning, signal: AbortSignal): AsyncGenerator<AgentEvent> {
    const reader: Reader = { waiting: this.#since(beginning), missed: 0, wake: () => {} };
    const unlisten = this.listen((event) => {
      if (reader.waiting.length >= MOST_WAITING) {
        reader.waiting.shift();
        reader.missed++;
      }
      reader.waiting.push(event);
      reader.wake();
    });
    this.#readers.add(reader);
    const stop = () => {
      unlisten();
      this.#readers.delete(reader);
      if (this.#readers.size === 0) this.#ending?.();
    };
    // Not only where the generator ends: one that was never read has no end.
    signal.addEventListener("abort", () => {
      stop();
      reader.wake();
    }, { once: true });
    if (signal.aborted) stop();
    return this.#read(reader, signal, stop);
  }

  async *#read(reader: Reader, signal: AbortSignal, stop: () => void): AsyncGenerator<AgentEvent> {
    const { waiting } = reader;
    try {
      while (!signal.aborted) {
        if (reader.missed > 0) {
          const before = this.#countOf(waiting[0]!.id)! - 1;
          const why = `${reader.missed} events came faster than they were read`;
          reader.missed = 0;
          yield this.#missed(before, why);
        }
        const next = waiting.shift();
        if (next !== undefined) yield next;
        else if (this.#ending !== undefined) return;
        else await new Promise<void>((resolve) => reader.wake = resolve);
      }
    } finally {
      stop();
    }
  }

  #since(beginning: Beginning): AgentEvent[] {
    switch (beginning.kind) {
      case "now":
        return [];
      case "last":
        return this.last(beginning.count);
      case "after": {
        const known = this.#countOf(beginning.id);
        const oldest = this.#count - this.#kept.length + 1;
        if (known === undefined || known > this.#count) {
          return [this.#missed(oldest - 1, "the agent was started anew since"), ...this.#kept];
        }
        const rest = this.#kept.slice(Math.max(known - oldest + 1, 0));
        const gone = oldest - 1 - known;
        return gone <= 0 ? rest : [this.#missed(oldest - 1, `${gone} events are not kept any more`), ...rest];
      }
    }
  }

  /** The number in an id of this epoch. */
  #countOf(id: string): number | undefined {
    const [, epoch, count] = /^(.+)-(\d{1,15})$/.exec(id) ?? [];
    return epoch === this.#epoch ? Number(count) : undefined;
  }

  /** Has the number of the last one that was missed, so that whoever comes back with it misses nothing more. */
  #missed(count: number, why: string): AgentEvent {
    return this.#numbered({ type: "events-missed", message: `events are missing here: ${why}` }, count);
  }

  #numbered({ type, guest, resources, holder, message }: Happening, count: number): AgentEvent {
    return {
      id: `${this.#epoch}-${count}`,
      time: new Date().toISOString(),
      type,
      guest: guest ?? null,
      resources: resources ?? [],
      holder: holder ?? null,
      message: printable(message),
    };
  }
}
