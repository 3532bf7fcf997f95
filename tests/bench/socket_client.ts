/** An HTTP client on a unix socket that costs little itself: one connection, one request after the other. */
export class SocketClient {
  readonly #connection: Deno.Conn;
  readonly #received = new Uint8Array(64 * 1024);
  readonly #decoder = new TextDecoder();

  private constructor(connection: Deno.Conn) {
    this.#connection = connection;
  }

  static async connect(socket: string): Promise<SocketClient> {
    return new SocketClient(await Deno.connect({ transport: "unix", path: socket }));
  }

  async get(path: string): Promise<string> {
    return await this.#ask(`GET ${path} HTTP/1.1\r\nHost: bench\r\n\r\n`);
  }

  async post(path: string, body: unknown): Promise<string> {
    const json = JSON.stringify(body); // of ASCII only here, so that a character is a byte
    const fields = `Host: bench\r\nContent-Type: application/json\r\nContent-Length: ${json.length}`;
    return await this.#ask(`POST ${path} HTTP/1.1\r\n${fields}\r\n\r\n${json}`);
  }

  close(): void {
    this.#connection.close();
  }

  /** Sends a request and gives the answer's body. @throws {Error} for any status but 200 */
  async #ask(request: string): Promise<string> {
    const bytes = new TextEncoder().encode(request);
    for (let sent = 0; sent < bytes.length;) sent += await this.#connection.write(bytes.subarray(sent));
    let answer = "";
    let bodyAt = -1;
    let length = 0;
    while (bodyAt < 0 || answer.length < bodyAt + length) {
      const read = await this.#connection.read(this.#received);
      if (read === null) throw new Error(`the connection ended within the answer: ${answer}`);
      answer += this.#decoder.decode(this.#received.subarray(0, read), { stream: true });
      const head = bodyAt < 0 ? answer.indexOf("\r\n\r\n") : -1;
      if (head < 0) continue;
      bodyAt = head + 4;
      length = Number(/\r\ncontent-length: (\d+)/i.exec(answer.slice(0, head))?.[1]);
    }
    if (!answer.startsWith("HTTP/1.1 200")) throw new Error(answer);
    return answer.slice(bodyAt);
  }
}

/** The events of the agent, as they come in. */
export class EventReader {
  readonly #connection: Deno.Conn;
  readonly #decoder = new TextDecoder();
  readonly #received = new Uint8Array(64 * 1024);
  #text = "";

  private constructor(connection: Deno.Conn) {
    this.#connection = connection;
  }

  static async connect(socket: string): Promise<EventReader> {
    const reader = new EventReader(await Deno.connect({ transport: "unix", path: socket }));
    await reader.#connection.write(
      new TextEncoder().encode("GET /v1/events HTTP/1.1\r\nHost: bench\r\n\r\n"),
    );
    await reader.#until("the events of lockvisor");
    return reader;
  }

  /** Returns as soon as an event has come that tells of the end of a guest. */
  async guestEnded(name: string): Promise<void> {
    await this.#until(`guest \\"${name}\\" has ended`);
  }

  close(): void {
    this.#connection.close();
  }

  async #until(words: string): Promise<void> {
    while (!this.#text.includes(words)) {
      const read = await this.#connection.read(this.#received);
      if (read === null) throw new Error("the events have ended");
      this.#text += this.#decoder.decode(this.#received.subarray(0, read), { stream: true });
    }
    this.#text = this.#text.slice(this.#text.indexOf(words) + words.length);
  }
}
