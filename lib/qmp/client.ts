import { LockvisorError } from "../errors.ts";
import { peerPid, sendWithDescriptor } from "../libc/unix_socket.ts";
import { openConnection, reasonOf, socketFailure } from "./connection.ts";
import { withinDeadline } from "./deadline.ts";
import { LineSplitter, LONGEST_LINE } from "./lines.ts";
import { parseQmpMessage, type QmpEvent, type QmpMessage } from "./message.ts";
import { descriptorOfSocket, type NamedConnection } from "./socket_inode.ts";

export type { QmpEvent } from "./message.ts";

/** How long each step may take when the caller does not say, in milliseconds: connect, greeting, every reply. */
export const QMP_DEADLINE_MS = 5000;

/** As much as a reply about many disks may take. */
const QMP_READ_BYTES = 65_536;

/** How to connect. */
export interface QmpOptions {
  /** For each step by itself: the connection, the greeting, every reply; in milliseconds. */
  deadlineMs?: number;
  /** The process that must be at the other end: a path may lead to another guest's socket by now. */
  expectedPid?: number;
  /** How much is read at a time, in bytes: the memory that a connection takes while nothing comes. */
  readBytes?: number;
  /** Called for each event, from the moment of the connection on; it must not throw. */
  onEvent?: (event: QmpEvent) => void;
}

/** QEMU refused a command that it understood: its own error class and words. Code `unavailable`. */
export class QmpCommandError extends LockvisorError {
  readonly errorClass: string;
  readonly description: string;

  constructor(socketPath: string, command: string, refusal: { errorClass: string; description: string }) {
    const { errorClass, description } = refusal;
    super("unavailable", `QMP socket ${socketPath}: ${command} was refused (${errorClass}): ${description}`, {
      details: { socket: socketPath, command, class: errorClass, desc: description },
    });
    this.name = "QmpCommandError";
    this.errorClass = errorClass;
    this.description = description;
  }
}

interface Waiting {
  resolve(message: QmpMessage): void;
  reject(error: LockvisorError): void;
}

/**
 * A connection to QEMU's monitor. Nothing in it waits without a deadline and nothing grows without a bound, whatever
 * the server does; the first fault ends the connection, and what is asked of it afterwards fails with that fault.
 */
export class QmpClient implements AsyncDisposable {
  readonly #path: string;
  readonly #connection: Deno.UnixConn;
  readonly #socketName: string;
  readonly #deadlineMs: number;
  readonly #readBytes: number;
  readonly #onEvent: (event: QmpEvent) => void;
  readonly #replies = new Map<number, Waiting>();
  readonly #greeting = Promise.withResolvers<QmpMessage>();
  readonly #reading: Promise<void>;
  #fault: LockvisorError | undefined;
  #nextId = 1;
  #lastWrite: Promise<unknown> = Promise.resolve();

  private constructor(path: string, { connection, socketName }: NamedConnection, options: QmpOptions) {
    this.#path = path;
    this.#connection = connection;
    this.#socketName = socketName;
    this.#deadlineMs = options.deadlineMs ?? QMP_DEADLINE_MS;
    this.#readBytes = options.readBytes ?? QMP_READ_BYTES;
    this.#onEvent = options.onEvent ?? (() => {});
    this.#greeting.promise.catch(() => {}); // told to whoever waits for it
    this.#reading = this.#read();
  }

  /**
   * Connects, awaits the greeting and leaves the negotiation mode.
   * @throws {LockvisorError} `unavailable`, or `permission`, naming the socket and what happened
   */
  static async connect(path: string, options: QmpOptions = {}): Promise<QmpClient> {
    const client = new QmpClient(
      path,
      await openConnection(path, options.deadlineMs ?? QMP_DEADLINE_MS),
      options,
    );
    try {
      client.#requirePeer(options.expectedPid);
      await client.#within("greeting", client.#greeting.promise, "; another program may be connected to it");
      await client.execute("qmp_capabilities");
      return client;
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  /**
   * Carries out a command and gives what it returns.
   * @throws {QmpCommandError} when QEMU refuses it
   * @throws {LockvisorError} `unavailable` when the connection fails; the command may have been carried out then
   */
  async execute(command: string, args?: Record<string, unknown>): Promise<unknown> {
    return await this.#ask(command, args, (bytes) => writeWhole(this.#connection, bytes));
  }

  /**
   * Hands a copy of one of our descriptors to QEMU under a name (`getfd`): QEMU keeps it, with its lock, past this
   * connection and past our own end, until `closefd` or its own end. An earlier one of the same name is closed.
   * @throws as {@linkcode execute}
   */
  async sendDescriptor(name: string, descriptor: number): Promise<void> {
    await this.#ask("getfd", { fdname: name }, (bytes) => {
      const socket = descriptorOfSocket(this.#socketName);
      const sent = socket === undefined ? -1 : sendWithDescriptor(socket, bytes, descriptor);
      if (sent !== bytes.length) throw this.#failure(`descriptor "${name}" could not be sent`);
      return Promise.resolve();
    });
  }

  /** Has QEMU close a descriptor that it got by {@linkcode sendDescriptor}. @throws as {@linkcode execute} */
  async closeDescriptor(name: string): Promise<void> {
    await this.execute("closefd", { fdname: name });
  }

  /** Settled when the connection has ended, for whatever reason. */
  get ended(): Promise<void> {
    return this.#reading;
  }

  /** Ends the connection. QEMU keeps the descriptors that it got. */
  async close(): Promise<void> {
    this.#end(this.#failure("the connection was closed here"));
    await this.#reading;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #ask(
    command: string,
    args: Record<string, unknown> | undefined,
    send: (bytes: Uint8Array<ArrayBuffer>) => Promise<void>,
  ): Promise<unknown> {
    if (this.#fault !== undefined) throw this.#fault;
    const id = this.#nextId++;
    const request = { execute: command, ...(args === undefined ? {} : { arguments: args }), id };
    const bytes = new TextEncoder().encode(JSON.stringify(request) + "\n");
    const reply = Promise.withResolvers<QmpMessage>();
    reply.promise.catch(() => {}); // told below, unless the sending fails first
    this.#replies.set(id, reply);
    // One line after the other: a descriptor travels with the bytes that it is sent with.
    const written = this.#lastWrite.then(() => send(bytes));
    this.#lastWrite = written.catch(() => {});
    try {
      const message = await this.#within(`reply to ${command}`, written.then(() => reply.promise), "");
      if (message.kind === "error") throw new QmpCommandError(this.#path, command, message);
      return message.kind === "return" ? message.value : undefined;
    } catch (error) {
      if (error instanceof QmpCommandError) throw error;
      throw this.#end(error instanceof LockvisorError ? error : this.#failure(reasonOf(error)));
    } finally {
      this.#replies.delete(id);
    }
  }

  /** Waits for something of the server; being late is a fault, since a reply may come at any time afterwards. */
  async #within<T>(what: string, awaited: Promise<T>, hint: string): Promise<T> {
    const outcome = await withinDeadline(awaited, this.#deadlineMs);
    if (outcome.kind === "done") return outcome.value;
    throw this.#end(this.#failure(`no ${what} within ${this.#deadlineMs} ms${hint}`));
  }

  async #read(): Promise<void> {
    const splitter = new LineSplitter();
    const chunk = new Uint8Array(this.#readBytes);
    try {
      while (this.#fault === undefined) {
        const count = await this.#connection.read(chunk);
        if (count === null) return void this.#end(this.#failure("it closed the connection"));
        const outcome = splitter.push(chunk.subarray(0, count));
        if (outcome.kind === "too-long") {
          return void this.#end(this.#failure(`it sent a line of more than ${LONGEST_LINE} bytes`));
        }
        if (outcome.kind === "not-text") {
          return void this.#end(this.#failure("it sent what is no UTF-8 text"));
        }
        for (const line of outcome.lines) this.#take(parseQmpMessage(line));
      }
    } catch (error) {
      this.#end(this.#failure(reasonOf(error)));
    }
  }

  #take(message: QmpMessage): void {
    switch (message.kind) {
      case "greeting":
        return this.#greeting.resolve(message);
      case "event":
        return this.#onEvent(message.event);
      case "garbage":
        return void this.#end(this.#failure(message.reason));
      case "return":
      case "error":
        return this.#replies.get(typeof message.id === "number" ? message.id : -1)?.resolve(message);
    }
  }

  /** Ends the connection with a fault, and with it all that waits. Gives the first fault. */
  #end(fault: LockvisorError): LockvisorError {
    if (this.#fault !== undefined) return this.#fault;
    this.#fault = fault;
    this.#greeting.reject(fault);
    for (const waiting of this.#replies.values()) waiting.reject(fault);
    try {
      this.#connection.close();
    } catch { /* it is closed */ }
    return fault;
  }

  #requirePeer(expectedPid: number | undefined): void {
    if (expectedPid === undefined) return;
    const socket = descriptorOfSocket(this.#socketName);
    const pid = socket === undefined ? undefined : peerPid(socket);
    if (pid === expectedPid) return;
    throw this.#end(
      this.#failure(`it belongs to process ${pid ?? "unknown"}, not to the guest's ${expectedPid}`),
    );
  }

  #failure(reason: string): LockvisorError {
    return socketFailure(this.#path, reason);
  }
}

async function writeWhole(connection: Deno.UnixConn, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) {
    written += await connection.write(bytes.subarray(written));
  }
}
