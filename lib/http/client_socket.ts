import { Deadline } from "./deadline.ts";

/** Where the bytes of a client go. */
export interface Intake {
  /** A place for the next bytes: `ahead` of what is wanted it may be empty. */
  room(purpose: "wanted" | "ahead"): Uint8Array;
  filled(bytes: number): void;
  discard(): void;
}

/**
 * What is known of the client: it may send more; it has shut its writing side, and may still read; nothing that is
 * sent reaches it.
 */
export type ClientState = "open" | "half-closed" | "gone";

/** What is written at once, and has to be read within the time for that, in bytes. */
const PIECE = 64 * 1024;

/** How often a client is looked after from whom nothing more can be read, in milliseconds. */
const PROBE_MS = 1_000;

/**
 * How long, in milliseconds, a client may go on sending after the last answer. A socket that is closed with unread
 * bytes resets the connection, and the client might lose the answer: RFC 9112, section 9.6.
 */
const LINGER_MS = 1_000;

const NOTHING = new Uint8Array(0);

/** One end of a connection: reads ahead, writes against a deadline, and notices that the client has gone. */
export class ClientSocket {
  readonly #connection: Deno.Conn;
  readonly #intake: Intake;
  readonly #writeMs: number;
  readonly #deadline = new Deadline(() => this.#passed());
  #state: ClientState = "open";
  #isLate = false;
  #isReading = false;
  #isClosed = false;
  #wake: (() => void) | undefined;
  #abandonWrite: (() => void) | undefined;
  #lastWrite: Promise<void> = Promise.resolve();
  #onGone: (() => void) | undefined;
  #probing: ReturnType<typeof setInterval> | undefined;

  constructor(connection: Deno.Conn, intake: Intake, writeMs: number) {
    this.#connection = connection;
    this.#intake = intake;
    this.#writeMs = writeMs;
  }

  get state(): ClientState {
    return this.#state;
  }

  /** Whether the deadline for the client's bytes has passed. */
  get isLate(): boolean {
    return this.#isLate;
  }

  /**
   * Resolves when the descriptor is free, after close(). A runtime before 2.9 keeps it as long as a write is under way,
   * which for a client that does not read is until that client goes.
   */
  get released(): Promise<void> {
    return this.#lastWrite;
  }

  /** Gives the client's bytes a deadline, in milliseconds. */
  expectWithin(milliseconds: number): void {
    this.#isLate = false;
    this.#deadline.set(milliseconds);
  }

  expectNothing(): void {
    this.#isLate = false;
    this.#deadline.off();
  }

  /** Waits until bytes have come, the client's state has changed, the deadline has passed, or wake() is called. */
  change(): Promise<void> {
    this.#read("wanted");
    return new Promise((resolve) => this.#wake = resolve);
  }

  wake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  /** Until unwatch(), looks whether the client is still there, and reads ahead for that; `onGone` is called once. */
  watch(onGone: () => void): void {
    if (this.#isClosed) return onGone();
    this.#onGone = onGone;
    this.#watchOn();
  }

  unwatch(): void {
    this.#onGone = undefined;
    this.#stopProbing();
  }

  /** Writes everything, or gives false because the client has gone, or does not read. */
  async write(bytes: Uint8Array): Promise<boolean> {
    for (let at = 0; at < bytes.length; at += PIECE) {
      // A copy, so that a write which never ends keeps no more than it.
      let rest = bytes.length <= PIECE ? bytes : bytes.slice(at, at + PIECE);
      this.#deadline.set(this.#writeMs);
      while (rest.length > 0) {
        if (this.#isClosed) return false;
        const written = await this.#put(rest);
        if (written === undefined) return false;
        rest = rest.subarray(written);
      }
    }
    this.#deadline.off();
    return true;
  }

  /** Says that nothing more will be sent, waits a moment for the client to have read the end, and closes. */
  async part(): Promise<void> {
    if (this.#state === "open") {
      try {
        await this.#connection.closeWrite();
      } catch {
        return this.close(); // it is not connected any more
      }
      this.expectWithin(LINGER_MS);
      while (this.state === "open" && !this.#isLate) {
        this.#intake.discard();
        await this.change();
      }
    }
    this.close();
  }

  /** Lets everything go at once; whoever waits here goes on. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#state = "gone";
    this.#deadline.end();
    this.#stopProbing();
    this.#connection.close();
    this.#abandonWrite?.();
    this.#onGone?.();
    this.wake();
  }

  #read(purpose: "wanted" | "ahead"): void {
    if (this.#isReading || this.#state !== "open") return;
    const room = this.#intake.room(purpose);
    if (room.length === 0) return;
    this.#isReading = true;
    this.#connection.read(room).then((bytes) => this.#came(bytes), () => this.close());
  }

  #came(bytes: number | null): void {
    this.#isReading = false;
    if (this.#isClosed) return;
    if (bytes === null) this.#state = "half-closed";
    else this.#intake.filled(bytes);
    this.wake();
    if (this.#onGone !== undefined) this.#watchOn();
  }

  #watchOn(): void {
    this.#read("ahead");
    if (this.#isReading || this.#isClosed || this.#probing !== undefined) return;
    this.#probe();
    this.#probing = setInterval(() => this.#probe(), PROBE_MS);
  }

  /**
   * Looks whether anybody is left to read. To write nothing fails with EPIPE once the other end is closed altogether,
   * and does not when only its writing side is shut: unix_stream_sendmsg() looks at that first. (On TCP it fails when
   * the other side has said so, which it does only to bytes that come too late.)
   */
  #probe(): void {
    if (this.#abandonWrite !== undefined) return; // the write that is under way fails just the same
    this.#connection.write(NOTHING).catch(() => this.close());
  }

  #stopProbing(): void {
    clearInterval(this.#probing);
    this.#probing = undefined;
  }

  #put(bytes: Uint8Array): Promise<number | undefined> {
    return new Promise((resolve) => {
      this.#abandonWrite = () => resolve(undefined);
      this.#lastWrite = this.#connection.write(bytes).then((written) => {
        this.#abandonWrite = undefined;
        resolve(written);
      }, () => this.close());
    });
  }

  #passed(): void {
    if (this.#abandonWrite !== undefined) return this.close();
    this.#isLate = true;
    this.wake();
  }
}
