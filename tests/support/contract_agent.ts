import { statusPage } from "../../lib/agent/status_page.ts";

/** A guest as `GET /v1/guests` tells it. */
export interface ToldGuest {
  uuid: string;
  name: string;
  id: string | null;
  state: string;
  plugin: string;
  pid: number | null;
  since: string;
  resources: {
    type: "disk" | "lease";
    name: string;
    access: "exclusive" | "shared" | "readonly";
    keys: string[];
    locked: boolean | null;
  }[];
  locks: { held: number; unknown: number; lost: number; total: number };
}

/** An event as `GET /v1/events` tells it. */
export interface ToldEvent {
  id: string;
  time: string;
  type: string;
  guest: { uuid: string; name: string; pid: number } | null;
  resources: { type: string; name: string; access: string }[];
  holder: Record<string, unknown> | null;
  message: string;
}

/** What the agent answers, without an agent: a test says what there is and what happens. */
export class ContractAgent implements AsyncDisposable {
  guests: ToldGuest[] = [];
  error: { code: string; message: string } | undefined;
  /** How often the guests were read. */
  readings = 0;
  /** The paths of all requests. */
  readonly requests: string[] = [];
  readonly #events: ToldEvent[] = [];
  readonly #streams = new Set<ReadableStreamDefaultController<Uint8Array>>();
  #server: Deno.HttpServer<Deno.NetAddr> | undefined;
  #port = 0;
  /** How many requests for the event stream will be refused, as by an agent that cannot take one more. */
  refusedStreams = 0;
  #streamsMayOpen = Promise.withResolvers<void>();

  static start(guests: ToldGuest[] = []): ContractAgent {
    const agent = new ContractAgent();
    agent.guests = guests;
    agent.allowStreams();
    agent.serve();
    return agent;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Listens, at the port that it had before if there was one. */
  serve(): void {
    const options = { hostname: "127.0.0.1", port: this.#port, onListen() {} };
    this.#server = Deno.serve(options, (request) => this.#answer(request));
    this.#port = this.#server.addr.port;
  }

  /** Is gone, with all connections, as after a kill. */
  async stop(): Promise<void> {
    this.cutStreams();
    await this.#server?.shutdown();
    this.#server = undefined;
  }

  /** Ends the event streams. */
  cutStreams(): void {
    for (const stream of this.#streams) stream.close();
    this.#streams.clear();
  }

  /** Lets those who ask for the event stream wait. */
  withholdStreams(): void {
    this.#streamsMayOpen = Promise.withResolvers<void>();
  }

  allowStreams(): void {
    this.#streamsMayOpen.resolve();
  }

  /** Says that something happened. */
  tell(type: string, message: string, details: Partial<ToldEvent> = {}): void {
    const event: ToldEvent = {
      id: String(this.#events.length + 1),
      time: new Date().toISOString(),
      type,
      guest: null,
      resources: [],
      holder: null,
      message,
      ...details,
    };
    this.#events.push(event);
    for (const stream of this.#streams) stream.enqueue(encoded(event));
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    this.requests.push(pathname);
    if (pathname === "/") {
      const { body, headers } = statusPage();
      return new Response(body, { headers });
    }
    if (pathname === "/v1/guests") {
      this.readings++;
      return Response.json({
        guests: this.guests,
        ...(this.error === undefined ? {} : { error: this.error }),
      });
    }
    if (pathname === "/healthz") {
      return Response.json({ status: "ok", version: "1.2.3", guests: this.guests.length });
    }
    if (pathname === "/v1/events") {
      await this.#streamsMayOpen.promise;
      if (this.refusedStreams > 0) {
        this.refusedStreams--;
        return new Response("too many", { status: 503 });
      }
      return this.#stream(request.headers.get("Last-Event-ID"), Number(searchParams.get("last")));
    }
    return new Response("not found", { status: 404 });
  }

  #stream(after: string | null, last: number): Response {
    const missed = after === null ? this.#events.slice(-last) : this.#events.slice(Number(after));
    let own: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        own = controller;
        this.#streams.add(own);
        own.enqueue(new TextEncoder().encode("retry: 100\n\n"));
        for (const event of missed) own.enqueue(encoded(event));
      },
      cancel: () => {
        this.#streams.delete(own);
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.allowStreams();
    await this.stop();
  }
}

function encoded(event: ToldEvent): Uint8Array<ArrayBuffer> {
  const text = `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
  return new TextEncoder().encode(text);
}
