import { errnoOf, printable } from "../errors.ts";
import { HttpConnection } from "./connection.ts";
import { DEFAULT_LIMITS, type HttpLimits, type HttpService } from "./message.ts";

/** What a server needs: all of a service, and those limits that are not to be the default. */
export type HttpServerOptions = Omit<HttpService, "limits"> & { limits?: Partial<HttpLimits> };

/** How long nothing is accepted, in milliseconds, after that failed: most often for want of descriptors. */
const ACCEPT_PAUSE_MS = 100;

/** How many connections that are turned away get time to read why; those beyond are closed once it is sent. */
const TURNED_AWAY_AT_ONCE = 64;

/** A small HTTP/1.1 server that does not let its clients take up more than its limits. */
export class HttpServer {
  readonly #listener: Deno.Listener;
  readonly #service: HttpService;
  readonly #serving = new Set<HttpConnection>();
  readonly #turnedAway = new Set<HttpConnection>();
  readonly #accepting: Promise<void>;
  #connections = 0;
  #closing: Promise<void> | undefined;
  #endPause: (() => void) | undefined;
  #onIdle: (() => void) | undefined;

  /** Starts to accept; the listener is the server's from now on. */
  constructor(listener: Deno.Listener, { handler, fail, problem, limits }: HttpServerOptions) {
    this.#listener = listener;
    this.#service = {
      handler,
      fail,
      limits: { ...DEFAULT_LIMITS, ...limits },
      problem: tellInOneLine(problem),
    };
    this.#accepting = this.#accept();
  }

  /**
   * How many connections count against the limit: those that are served, and those whose descriptor is not free yet.
   */
  get connections(): number {
    return this.#connections;
  }

  /**
   * Stops accepting, ends idle connections and streams at once, and lets requests that are under way be answered within
   * `graceMs` milliseconds. What is not done then is cut off. A handler that goes on all the same is not waited for.
   */
  close(graceMs: number): Promise<void> {
    this.#closing ??= this.#close(graceMs);
    return this.#closing;
  }

  async #close(graceMs: number): Promise<void> {
    this.#listener.close();
    this.#endPause?.();
    for (const connection of this.#serving) connection.endSoon();
    const grace = setTimeout(() => {
      for (const connection of [...this.#serving, ...this.#turnedAway]) connection.cutShort();
    }, graceMs);
    while (this.#serving.size + this.#turnedAway.size > 0) {
      await new Promise<void>((resolve) => this.#onIdle = resolve);
    }
    clearTimeout(grace);
    await this.#accepting;
  }

  async #accept(): Promise<void> {
    let isFailing = false;
    while (true) {
      try {
        const connection = await this.#listener.accept();
        isFailing = false;
        if (this.#closing !== undefined) return connection.close();
        await this.#take(connection);
      } catch (error) {
        if (this.#closing !== undefined) return;
        if (!isFailing) this.#service.problem(`no connection can be accepted: ${reasonOf(error)}`);
        if (error instanceof Deno.errors.BadResource) return; // somebody else has closed the listener
        isFailing = true;
        await this.#pause();
      }
    }
  }

  async #pause(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#endPause = resolve;
      timer = setTimeout(resolve, ACCEPT_PAUSE_MS);
    });
    clearTimeout(timer);
    this.#endPause = undefined;
  }

  async #take(connection: Deno.Conn): Promise<void> {
    // What is written is complete: to wait for more of it, as TCP likes to, would only take time.
    if ("setNoDelay" in connection) (connection as Deno.TcpConn).setNoDelay();
    const client = new HttpConnection(connection, this.#service);
    if (this.#connections < this.#service.limits.connections) {
      this.#serve(client);
    } else if (this.#turnedAway.size < TURNED_AWAY_AT_ONCE) {
      this.#turnAway(client, "orderly");
    } else {
      await this.#turnAway(client, "at-once");
    }
  }

  async #serve(client: HttpConnection): Promise<void> {
    this.#connections++;
    this.#serving.add(client);
    await client.serve();
    this.#serving.delete(client);
    this.#onIdle?.();
    await client.released;
    this.#connections--;
  }

  async #turnAway(client: HttpConnection, parting: "orderly" | "at-once"): Promise<void> {
    this.#turnedAway.add(client);
    await client.turnAway(503, "too many connections are open; try again later", parting);
    this.#turnedAway.delete(client);
    this.#onIdle?.();
  }
}

/** Serving goes on also when nobody can be told what is wrong: a log may be full, or its reader gone. */
function tellInOneLine(problem: (line: string) => void): (line: string) => void {
  return (line) => {
    try {
      problem(printable(line));
    } catch { /* there is nobody else to tell */ }
  };
}

function reasonOf(error: unknown): string {
  const errno = errnoOf(error);
  if (errno === "EMFILE") return "too many open descriptors; raise the limit (ulimit -n, LimitNOFILE=)";
  return error instanceof Error ? error.message : String(error);
}
