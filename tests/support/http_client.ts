import { withinDeadline } from "../../lib/qmp/deadline.ts";
import { HttpServer, type HttpServerOptions } from "../../lib/http/server.ts";

/** One answer as it came over the wire, its body with the chunks put together. */
export interface Answer {
  status: number;
  headers: Map<string, string>;
  body: string;
}

/** A client that sends whatever it is told to, byte by byte if need be. */
export class RawClient {
  readonly connection: Deno.Conn;
  #came = new Uint8Array(0);
  #isClosed = false;

  constructor(connection: Deno.Conn) {
    this.connection = connection;
  }

  /** Sends bytes, or text with one byte for each character. */
  async send(data: string | Uint8Array): Promise<void> {
    let rest = typeof data === "string" ? Uint8Array.from(data, (char) => char.charCodeAt(0)) : data;
    while (rest.length > 0) rest = rest.subarray(await this.connection.write(rest));
  }

  /** The next answer. `method` is that of the request, as an answer to HEAD has no body. @throws at an early end */
  async answer(method = "GET"): Promise<Answer> {
    const head = await this.until("\r\n\r\n");
    const [first = "", ...lines] = head.slice(0, -4).split("\r\n");
    const headers = new Map(lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }));
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1]);
    return { status, headers, body: await this.#body(method, status, headers) };
  }

  async #body(method: string, status: number, headers: Map<string, string>): Promise<string> {
    if (method === "HEAD" || status < 200 || status === 204 || status === 304) return "";
    const length = headers.get("content-length");
    if (length !== undefined) return utf8(await this.bytes(Number(length)));
    if (headers.get("transfer-encoding") !== "chunked") return utf8(await this.rest());
    let body = "";
    for (let chunk = await this.chunk(); chunk !== ""; chunk = await this.chunk()) body += chunk;
    return body;
  }

  /** The next chunk of a chunked body, "" for the last one. */
  async chunk(): Promise<string> {
    const size = parseInt(await this.until("\r\n"), 16);
    const bytes = await this.bytes(size);
    await this.bytes(2);
    return utf8(bytes);
  }

  /** What comes up to and with a mark. */
  async until(mark: string): Promise<string> {
    while (true) {
      const at = latin1(this.#came).indexOf(mark);
      if (at >= 0) return latin1(this.#take(at + mark.length));
      if (!await this.#more()) {
        throw new Error(`the connection ended after ${JSON.stringify(latin1(this.#came))}`);
      }
    }
  }

  async bytes(count: number): Promise<Uint8Array> {
    while (this.#came.length < count) {
      if (!await this.#more()) {
        throw new Error(`the connection ended ${count - this.#came.length} bytes early`);
      }
    }
    return this.#take(count);
  }

  /** Everything until the server closes the connection; nothing when it resets it. */
  async rest(): Promise<Uint8Array> {
    while (await this.#more());
    return this.#take(this.#came.length);
  }

  #take(count: number): Uint8Array {
    const taken = this.#came.slice(0, count);
    this.#came = this.#came.slice(count);
    return taken;
  }

  async #more(): Promise<boolean> {
    const room = new Uint8Array(64 * 1024);
    const count = await soon("the server sends or closes", this.connection.read(room).catch(() => null));
    if (count === null) return false;
    const joined = new Uint8Array(this.#came.length + count);
    joined.set(this.#came);
    joined.set(room.subarray(0, count), this.#came.length);
    this.#came = joined;
    return true;
  }

  close(): void {
    if (!this.#isClosed) this.connection.close();
    this.#isClosed = true;
    this.#came = new Uint8Array(0);
  }
}

/** The text of bytes, one character for each. */
export function latin1(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) {
    text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  }
  return text;
}

function utf8(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** A server on a socket in a temporary directory, its clients, and the problems that it told of. */
export class ServedSocket implements AsyncDisposable {
  readonly path: string;
  readonly server: HttpServer;
  readonly problems: string[] = [];
  readonly #directory: string;
  readonly #clients: RawClient[] = [];

  /** Without a handler every request is answered with its target. */
  constructor(options: Partial<HttpServerOptions> = {}) {
    this.#directory = Deno.makeTempDirSync({ prefix: "lockvisor-test-" });
    this.path = `${this.#directory}/http`;
    this.server = new HttpServer(Deno.listen({ transport: "unix", path: this.path }), {
      handler: ({ target }) => ({ status: 200, body: target }),
      fail: (status, message) => ({
        type: "application/json",
        body: JSON.stringify({ error: { code: status, message } }),
      }),
      problem: (line) => this.problems.push(line),
      ...options,
    });
  }

  /** A new connection. While the queue of those that wait is full the kernel refuses, connect(2); it is asked again. */
  async connect(): Promise<RawClient> {
    for (let attempt = 0;; attempt++) {
      try {
        const client = new RawClient(await Deno.connect({ transport: "unix", path: this.path }));
        this.#clients.push(client);
        return client;
      } catch (error) {
        if (!String(error).includes("os error 11") || attempt === 200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  }

  /** Drops clients that are closed. */
  forget(): void {
    this.#clients.length = 0;
  }

  /** One request on a connection of its own. */
  async ask(request: string, method = "GET"): Promise<Answer> {
    const client = await this.connect();
    await client.send(request);
    const answer = await client.answer(method);
    client.close();
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close();
    await this.server.close(0);
    await Deno.remove(this.#directory, { recursive: true });
  }
}

/** A request without a body. */
export function get(target: string, ...headers: string[]): string {
  return [`GET ${target} HTTP/1.1`, "Host: localhost", ...headers, "", ""].join("\r\n");
}

/** A promise, what settles it, and how a test waits for it. */
export function signalled(): {
  promise: Promise<void>;
  give: () => void;
  wait: (what: string) => Promise<void>;
} {
  let give!: () => void;
  const promise = new Promise<void>((resolve) => give = resolve);
  return { promise, give, wait: (what) => soon(what, promise) };
}

/** Waits for a promise. @throws when that takes longer than anything here should */
async function soon<T>(what: string, promise: Promise<T>): Promise<T> {
  const outcome = await withinDeadline(promise, 20_000);
  if (outcome.kind === "late") throw new Error(`not within 20 s: ${what}`);
  return outcome.value;
}
