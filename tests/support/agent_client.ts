/** Where a server listens. */
export type Address =
  | { transport: "unix"; path: string }
  | { transport: "tcp"; hostname: string; port: number };

/** A request that is as it should be, but for what a test wants otherwise. A body that is no text is sent as JSON. */
export interface Request {
  method?: string;
  path: string;
  headers?: Record<string, string>;
  body?: unknown;
}

/** An answer's first line and its fields, by their names in lower case. */
export interface AnswerHead {
  status: number;
  headers: Map<string, string>;
}

/** A whole answer. */
export class Answer implements AnswerHead {
  constructor(readonly status: number, readonly headers: Map<string, string>, readonly body: string) {}

  // deno-lint-ignore no-explicit-any -- each test knows what it has asked for
  get json(): any {
    return JSON.parse(this.body);
  }
}

/** How long the server may be silent where a test waits for it, in milliseconds. */
const PATIENCE_MS = 30_000;

/** One connection to a server, over which anything can be sent. */
export class HttpClient implements Disposable {
  readonly #connection: Deno.Conn;
  #bytes = new Uint8Array(0);
  #isClosed = false;

  private constructor(connection: Deno.Conn) {
    this.#connection = connection;
  }

  static async connect(address: Address): Promise<HttpClient> {
    const connection = address.transport === "unix"
      ? await connectToSocket(address.path)
      : await Deno.connect(address) as unknown as Deno.Conn;
    return new HttpClient(connection);
  }

  /** Sends bytes as they are. @throws when the server has closed the connection */
  async send(content: string | Uint8Array): Promise<void> {
    let rest = typeof content === "string" ? new TextEncoder().encode(content) : content;
    while (rest.length > 0) rest = rest.subarray(await this.#connection.write(rest));
  }

  /** Sends a request, and reads its answer. */
  async ask(request: Request): Promise<Answer> {
    await this.send(formatRequest(request));
    return await this.answer(request.method);
  }

  /** Says that nothing more will be sent. */
  async closeWrite(): Promise<void> {
    await this.#connection.closeWrite();
  }

  /** Reads the next answer; `method` is what it answers. @throws when the connection ends before it is whole */
  async answer(method = "GET"): Promise<Answer> {
    const { status, headers } = await this.head();
    if (method === "HEAD" || status === 204) return new Answer(status, headers, "");
    if (headers.get("transfer-encoding") === "chunked") {
      let body = "";
      for await (const piece of this.pieces()) body += piece;
      return new Answer(status, headers, body);
    }
    const length = Number(headers.get("content-length") ?? NaN);
    if (Number.isNaN(length)) return new Answer(status, headers, await this.rest());
    return new Answer(status, headers, new TextDecoder().decode(await this.#take(length)));
  }

  /** Reads the head of the next answer. */
  async head(): Promise<AnswerHead> {
    const [first = "", ...lines] = (await this.#takeUntil("\r\n\r\n")).split("\r\n");
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1] ?? NaN);
    if (Number.isNaN(status)) throw new Error(`no answer in HTTP: ${JSON.stringify(first.slice(0, 200))}`);
    const headers = new Map(lines.map((line): [string, string] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }));
    return { status, headers };
  }

  /** The pieces of a chunked body, as they come. */
  async *pieces(): AsyncGenerator<string> {
    const decoder = new TextDecoder();
    while (true) {
      const size = parseInt(await this.#takeUntil("\r\n"), 16);
      const piece = await this.#take(size);
      await this.#take(2);
      if (size === 0) return;
      yield decoder.decode(piece, { stream: true });
    }
  }

  /** Everything up to the end of the connection, however it ends. */
  async rest(): Promise<string> {
    while (await this.#read() === "more");
    return new TextDecoder().decode(this.#bytes);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #takeUntil(end: string): Promise<string> {
    while (true) {
      // One character for each byte, so that an offset in the text is one in the bytes.
      const at = new TextDecoder("latin1").decode(this.#bytes).indexOf(end);
      if (at >= 0) {
        const text = new TextDecoder().decode(await this.#take(at));
        await this.#take(end.length);
        return text;
      }
      if (await this.#read() === "end") throw this.#cutOff();
    }
  }

  async #take(length: number): Promise<Uint8Array> {
    while (this.#bytes.length < length) {
      if (await this.#read() === "end") throw this.#cutOff();
    }
    const taken = this.#bytes.slice(0, length);
    this.#bytes = this.#bytes.slice(length);
    return taken;
  }

  #cutOff(): Error {
    return new Error(`the connection ended in the middle, behind ${new TextDecoder().decode(this.#bytes)}`);
  }

  async #read(): Promise<"more" | "end"> {
    const room = new Uint8Array(64 * 1024);
    let isPatient = true;
    const patience = setTimeout(() => {
      isPatient = false;
      this.close();
    }, PATIENCE_MS);
    try {
      const read = await this.#connection.read(room);
      if (read === null) return "end";
      const bytes = new Uint8Array(this.#bytes.length + read);
      bytes.set(this.#bytes);
      bytes.set(room.subarray(0, read), this.#bytes.length);
      this.#bytes = bytes;
      return "more";
    } catch (error) {
      if (!isPatient) throw new Error(`the server was silent for ${PATIENCE_MS} ms`);
      if (error instanceof Deno.errors.ConnectionReset) return "end";
      throw error;
    } finally {
      clearTimeout(patience);
    }
  }
}

/** A request as it is sent. */
export function formatRequest({ method = "GET", path, headers = {}, body }: Request): Uint8Array {
  const encoder = new TextEncoder();
  const content = body === undefined
    ? undefined
    : body instanceof Uint8Array
    ? body
    : encoder.encode(typeof body === "string" ? body : JSON.stringify(body));
  const fields = {
    host: "localhost",
    ...(content === undefined
      ? {}
      : { "content-type": "application/json", "content-length": String(content.length) }),
    ...headers,
  };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const head = encoder.encode(`${method} ${path} HTTP/1.1\r\n${lines}\r\n`);
  const whole = new Uint8Array(head.length + (content?.length ?? 0));
  whole.set(head);
  if (content !== undefined) whole.set(content, head.length);
  return whole;
}

/** While the queue of those that wait is full the kernel refuses at once, connect(2): it is asked again. */
async function connectToSocket(path: string): Promise<Deno.Conn> {
  const deadline = Date.now() + PATIENCE_MS;
  while (true) {
    try {
      return await Deno.connect({ transport: "unix", path }) as unknown as Deno.Conn;
    } catch (error) {
      if (!String(error).includes("os error 11") || Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

/** Asks over a connection of its own. */
export async function ask(address: Address, request: Request): Promise<Answer> {
  using client = await HttpClient.connect(address);
  return await client.ask(request);
}
