import { ClientSocket } from "./client_socket.ts";
import {
  type HttpRequest,
  type HttpResponse,
  type HttpService,
  type Refused,
  refused,
  type StreamedResponse,
  type WholeResponse,
} from "./message.ts";
import type { RequestHead } from "./request_head.ts";
import { type ParsePosition, RequestParser } from "./request_parser.ts";
import {
  type Afterwards,
  CONTINUE,
  formatStreamHead,
  formatWhole,
  isBodiless,
  LAST_CHUNK,
  pieceOfStream,
  type ResponseFraming,
} from "./response.ts";

/** What a client sent, when it is enough to act on it. */
type Received = { kind: "request"; head: RequestHead; body: Uint8Array } | Refused | { kind: "nothing" };

/** How it goes on with the connection: the next request, an orderly end, or nothing more at all. */
type Onwards = "next" | "part" | "over";

/** One client's connection: its requests are answered one after the other. */
export class HttpConnection {
  readonly #service: HttpService;
  readonly #parser: RequestParser;
  readonly #socket: ClientSocket;
  /** The server closes: what is under way is finished, and nothing is begun. */
  #isEnding = false;
  #isFirst = true;
  /** For the request that is being answered. */
  #controller: AbortController | undefined;
  #endStream: (() => void) | undefined;
  #giveUp: (() => void) | undefined;

  constructor(connection: Deno.Conn, service: HttpService) {
    this.#service = service;
    this.#parser = new RequestParser(service.limits);
    this.#socket = new ClientSocket(connection, this.#parser, service.limits.writeMs);
  }

  /** Resolves when the descriptor is free; to be asked for after serve() or turnAway(). */
  get released(): Promise<void> {
    return this.#socket.released;
  }

  /** Answers requests until the connection ends. Never rejects. */
  async serve(): Promise<void> {
    try {
      let onwards: Onwards = "next";
      while (onwards === "next") onwards = await this.#serveNext();
      if (onwards === "part") await this.#socket.part();
    } catch (error) {
      this.#service.problem(`a connection broke: ${reasonOf(error)}`);
    }
    this.#socket.close();
  }

  /** Answers with a refusal before anything was asked. Never rejects. */
  async turnAway(status: number, message: string, parting: "orderly" | "at-once"): Promise<void> {
    await this.#refuse(refused(status, message));
    if (parting === "orderly") await this.#socket.part();
    this.#socket.close();
  }

  /** Ends the connection as soon as what it does is done; a stream is done at once. */
  endSoon(): void {
    this.#isEnding = true;
    if (this.#endStream !== undefined) this.#controller?.abort();
    this.#endStream?.();
    this.#socket.wake();
  }

  /** Ends the connection now, whatever it does. */
  cutShort(): void {
    this.#isEnding = true;
    this.#socket.close();
    this.#giveUp?.();
  }

  async #serveNext(): Promise<Onwards> {
    const received = await this.#receive();
    if (received.kind === "nothing") return "over";
    if (received.kind === "refused") return await this.#refuse(received);
    this.#isFirst = false;
    return await this.#answer(received.head, received.body);
  }

  async #receive(): Promise<Received> {
    const socket = this.#socket;
    let position: ParsePosition | undefined;
    while (true) {
      const step = this.#parser.next();
      if (step.kind === "proceed") {
        if (!await socket.write(CONTINUE)) return { kind: "nothing" };
        continue;
      }
      if (step.kind !== "more") {
        socket.expectNothing();
        return step;
      }
      const isIdle = this.#parser.position === "between";
      if (socket.state === "gone") return { kind: "nothing" };
      if (socket.state === "half-closed") {
        return isIdle ? { kind: "nothing" } : refused(400, "the request ends in the middle");
      }
      if (isIdle && this.#isEnding) return { kind: "nothing" };
      if (position !== this.#parser.position) {
        position = this.#parser.position;
        socket.expectWithin(this.#timeFor(position));
      } else if (socket.isLate) {
        return isIdle ? { kind: "nothing" } : refused(408, `the request's ${position} took too long`);
      }
      await socket.change();
    }
  }

  #timeFor(position: ParsePosition): number {
    const { headMs, bodyMs, idleMs } = this.#service.limits;
    if (position === "body") return bodyMs;
    return position === "head" || this.#isFirst ? headMs : idleMs;
  }

  async #refuse({ status, message }: Refused): Promise<Onwards> {
    const pieces = formatWhole(this.#failure(status, message), { method: "GET", version: "1.1" }, "close");
    return await this.#writeAll(pieces) ? "part" : "over";
  }

  /** The response to something that went wrong. */
  #failure(status: number, message: string): WholeResponse {
    try {
      const { type, body } = this.#service.fail(status, message);
      return { status, headers: { "content-type": type }, body };
    } catch (error) {
      this.#service.problem(`no words for status ${status}: ${reasonOf(error)}`);
      return { status, headers: { "content-type": "text/plain" }, body: `${message}\n` };
    }
  }

  async #answer(head: RequestHead, body: Uint8Array): Promise<Onwards> {
    const controller = this.#controller = new AbortController();
    this.#socket.watch(() => {
      controller.abort();
      this.#endStream?.();
    });
    try {
      const response = await this.#handled(head, body, controller.signal);
      if (response === undefined) return "over";
      if (response.stream === undefined) return await this.#sendWhole(head, response);
      return await this.#sendStream(head, response);
    } finally {
      this.#socket.unwatch();
      this.#controller = undefined;
    }
  }

  /** What the handler answers, or undefined when the connection was cut short meanwhile. */
  async #handled(
    { line, headers }: RequestHead,
    body: Uint8Array,
    signal: AbortSignal,
  ): Promise<HttpResponse | undefined> {
    const { method, target, path } = line;
    const request: HttpRequest = {
      method,
      target,
      path,
      query: new URLSearchParams(line.search),
      headers,
      body,
      signal,
    };
    try {
      const response = this.#service.handler(request);
      if (!(response instanceof Promise)) return response;
      return await new Promise<HttpResponse | undefined>((resolve, reject) => {
        this.#giveUp = () => resolve(undefined);
        response.then(resolve, reject);
      });
    } catch (error) {
      return this.#inside(line, error);
    } finally {
      this.#giveUp = undefined;
    }
  }

  /** What the client gets when something failed that it has no part in. */
  #inside({ method, target }: RequestHead["line"], error: unknown): WholeResponse {
    this.#service.problem(`${method} ${target}: ${reasonOf(error)}`);
    return this.#failure(500, "something failed inside the server");
  }

  async #sendWhole(head: RequestHead, response: WholeResponse): Promise<Onwards> {
    const afterwards = this.#afterwards(head);
    let pieces: Uint8Array[];
    try {
      pieces = formatWhole(response, head.line, afterwards);
    } catch (error) {
      pieces = formatWhole(this.#inside(head.line, error), head.line, afterwards);
    }
    if (!await this.#writeAll(pieces)) return "over";
    return afterwards === "keep" ? "next" : "part";
  }

  #afterwards(head: RequestHead): Afterwards {
    return head.persists && !this.#isEnding ? "keep" : "close";
  }

  async #sendStream(head: RequestHead, response: StreamedResponse): Promise<Onwards> {
    const { line } = head;
    const isChunked = line.version === "1.1";
    const hasBody = line.method !== "HEAD" && !isBodiless(response.status);
    const framing: ResponseFraming = isBodiless(response.status)
      ? { kind: "none" }
      : { kind: isChunked ? "chunked" : "connection" };
    const afterwards = isChunked ? this.#afterwards(head) : "close";
    const { status, headers = {}, stream } = response;
    let iterator: AsyncIterator<string> | undefined;
    let isWhole = false;
    try {
      iterator = stream[Symbol.asyncIterator]();
      const start = formatStreamHead({ status, headers, framing, version: line.version, afterwards });
      if (!await this.#socket.write(start)) return "over";
      while (hasBody) {
        const next = await this.#nextOf(iterator);
        isWhole = next?.done === true;
        if (next === undefined || next.done) break;
        if (next.value === "") continue; // an empty chunk would be the last one
        if (!await this.#socket.write(pieceOfStream(next.value, framing))) return "over";
      }
    } catch (error) {
      isWhole = true;
      // Without its last chunk the client knows that something is missing.
      this.#service.problem(`${line.method} ${line.target}: ${reasonOf(error)}`);
      return "over";
    } finally {
      if (!isWhole) this.#endIterator(iterator);
    }
    if (this.#socket.state === "gone") return "over";
    if (hasBody && isChunked && !await this.#socket.write(LAST_CHUNK)) return "over";
    return afterwards === "keep" && !this.#isEnding ? "next" : "part";
  }

  /** The next piece of a stream, or undefined when nobody wants it any more. */
  async #nextOf(iterator: AsyncIterator<string>): Promise<IteratorResult<string> | undefined> {
    if (this.#isEnding || this.#socket.state === "gone") return undefined;
    const next = iterator.next();
    try {
      return await new Promise<IteratorResult<string> | undefined>((resolve, reject) => {
        this.#endStream = () => resolve(undefined);
        next.then(resolve, reject);
      });
    } finally {
      this.#endStream = undefined;
    }
  }

  /** Tells a stream that nobody reads it; it may take its time, and nobody waits for that. */
  #endIterator(iterator: AsyncIterator<string> | undefined): void {
    this.#controller?.abort();
    const end = async () => await iterator?.return?.();
    end().catch((error) => this.#service.problem(`a stream did not end well: ${reasonOf(error)}`));
  }

  async #writeAll(pieces: readonly Uint8Array[]): Promise<boolean> {
    for (const piece of pieces) {
      if (!await this.#socket.write(piece)) return false;
    }
    return true;
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
