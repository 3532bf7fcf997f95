import type { AgentEvent, EventType } from "../../lib/agent/event.ts";
import { type Address, type Answer, ask, formatRequest, HttpClient, type Request } from "./agent_client.ts";
import { until } from "./until.ts";
import { BINARY, type Finished, type World } from "./world.ts";

/** How long an event may take where a test waits for it, in milliseconds. */
const PATIENCE_MS = 20_000;

/** A line of the agent's log. Lines that tell of an event have its type and what belongs to it. */
export interface LogLine {
  time: string;
  level: "debug" | "info" | "warning" | "error";
  message: string;
  event?: EventType;
  id?: string;
}

/** What is not as for most agents. */
export interface AgentOptions {
  env?: Record<string, string>;
  /** Another build of the program. */
  binary?: string;
  /** `configured`: where the hooks are is not said on the command line, but by the configuration. */
  hooks?: "given" | "configured";
}

/** `lockvisor daemon` in a world, with its log, and a client for its socket. Ends with the test. */
export class Agent implements AsyncDisposable {
  readonly pid: number;
  readonly address: Address;
  /** Its log so far. */
  readonly log: LogLine[] = [];
  readonly #child: Deno.ChildProcess;
  readonly #stderr: Promise<string>;
  readonly #stdout: Promise<string>;
  #written = "";
  #status: Deno.CommandStatus | undefined;

  private constructor(child: Deno.ChildProcess, socket: string) {
    this.pid = child.pid;
    this.address = { transport: "unix", path: socket };
    this.#child = child;
    this.#stderr = this.#readLog(child.stderr);
    this.#stdout = this.#readOutput(child.stdout);
    child.status.then((status) => this.#status = status);
  }

  /** Starts an agent and waits until it answers. @throws when it ends before, with what it said */
  static async start(
    world: World,
    args: readonly string[] = [],
    options: AgentOptions = {},
  ): Promise<Agent> {
    const agent = Agent.#spawn(world, args, options);
    const answers = async () => {
      if (agent.#status !== undefined) return true;
      try {
        return (await agent.get("/healthz")).status === 200;
      } catch {
        return false; // nobody listens yet
      }
    };
    try {
      await until("the agent answers", answers);
    } catch (error) {
      await agent[Symbol.asyncDispose]();
      throw error;
    }
    if (agent.#status !== undefined) {
      throw new Error(`the agent ended with ${agent.#status.code}: ${(await agent.finished()).stderr}`);
    }
    return agent;
  }

  /** Starts an agent that is to end by itself: it is refused what it is told to do. */
  static async refused(world: World, args: readonly string[]): Promise<Finished> {
    await using agent = Agent.#spawn(world, args, {});
    await until("the agent ends", () => agent.#status !== undefined);
    return await agent.finished();
  }

  static #spawn(
    world: World,
    args: readonly string[],
    { env = {}, binary = BINARY, hooks: place = "given" }: AgentOptions,
  ): Agent {
    // Not the host's own hooks.
    const hooks = place === "configured" || args.includes("--hooks")
      ? []
      : ["--hooks", `${world.directory}/hooks.d`];
    const given = args.indexOf("--socket");
    const child = new Deno.Command(binary, {
      args: ["daemon", "--log-format", "json", ...hooks, ...args],
      clearEnv: true,
      env: { ...world.environment, ...env },
      cwd: world.directory,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    return new Agent(child, given < 0 ? `${world.runtimeDir}/lockvisor.sock` : args[given + 1]!);
  }

  /** Where it listens over TCP, once it has said so; asked for with `--listen 127.0.0.1:0`. */
  async tcp(): Promise<Extract<Address, { transport: "tcp" }>> {
    await until("the agent says where it listens", () => this.#written.includes("\n"));
    const { hostname, port } = new URL(this.#written.slice(0, this.#written.indexOf("\n")));
    return { transport: "tcp", hostname: hostname.replace(/^\[(.*)\]$/, "$1"), port: Number(port) };
  }

  ask(request: Request): Promise<Answer> {
    return ask(this.address, request);
  }

  get(path: string): Promise<Answer> {
    return this.ask({ path });
  }

  post(path: string, body: unknown = {}): Promise<Answer> {
    return this.ask({ method: "POST", path, body });
  }

  connect(): Promise<HttpClient> {
    return HttpClient.connect(this.address);
  }

  /** Follows its events. @param query such as `last=10` */
  events(query = "", headers: Record<string, string> = {}): Promise<EventReader> {
    return EventReader.open(this.address, { path: `/v1/events${query === "" ? "" : `?${query}`}`, headers });
  }

  /** Waits for a line of its log. */
  async logged(what: (line: LogLine) => boolean): Promise<LogLine> {
    await until("the agent's log has the line", () => this.log.some(what));
    return this.log.find(what)!;
  }

  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Ends it as a service manager does, and waits for that. */
  async end(): Promise<Finished> {
    this.kill("SIGTERM");
    return await this.finished();
  }

  /** Exit status and output, after its end. */
  async finished(): Promise<Finished> {
    const [{ code, signal }, stdout, stderr] = await Promise.all([
      this.#child.status,
      this.#stdout,
      this.#stderr,
    ]);
    return { code, signal, stdout, stderr };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.kill("SIGKILL");
    } catch { /* it has ended */ }
    await this.finished();
  }

  async #readLog(stream: ReadableStream<Uint8Array>): Promise<string> {
    let text = "";
    let rest = "";
    for await (const piece of textOf(stream)) {
      text += piece;
      const lines = (rest + piece).split("\n");
      rest = lines.pop()!;
      // What it is refused before its log is open is a line for people.
      for (const line of lines) if (line.startsWith("{")) this.log.push(JSON.parse(line));
    }
    return text;
  }

  async #readOutput(stream: ReadableStream<Uint8Array>): Promise<string> {
    for await (const piece of textOf(stream)) this.#written += piece;
    return this.#written;
  }
}

function textOf(stream: ReadableStream<Uint8Array>): ReadableStream<string> {
  return stream.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>);
}

/** Reads an agent's events, one after the other. */
export class EventReader implements Disposable {
  /** All that have been read. */
  readonly seen: AgentEvent[] = [];
  readonly #client: HttpClient;
  readonly #events: AsyncGenerator<AgentEvent>;

  private constructor(client: HttpClient) {
    this.#client = client;
    this.#events = eventsOf(client.pieces());
  }

  /** Opens a stream of events; once it is open, none is missed. @throws when it is refused */
  static async open(address: Address, request: Request): Promise<EventReader> {
    const client = await HttpClient.connect(address);
    try {
      await client.send(formatRequest(request));
      const { status } = await client.head();
      if (status !== 200) throw new Error(`no events: ${status} ${await client.rest()}`);
    } catch (error) {
      client.close();
      throw error;
    }
    return new EventReader(client);
  }

  /** The next event. @throws when the stream ends, or when none comes in time */
  async next(): Promise<AgentEvent> {
    let isLate = false;
    const patience = setTimeout(() => {
      isLate = true;
      this.close();
    }, PATIENCE_MS);
    try {
      const { value, done } = await this.#events.next();
      if (done) throw new Error("the events have ended");
      this.seen.push(value);
      return value;
    } catch (error) {
      if (!isLate) throw error;
      const last = this.seen.at(-1);
      throw new Error(
        `no event in ${PATIENCE_MS} ms; the last one was ${last?.type ?? "none"} ${last?.id ?? ""}`,
      );
    } finally {
      clearTimeout(patience);
    }
  }

  /** Reads on to an event of a type, or to one that fits. */
  async until(wanted: EventType | ((event: AgentEvent) => boolean)): Promise<AgentEvent> {
    const fits = typeof wanted === "string" ? ({ type }: AgentEvent) => type === wanted : wanted;
    while (true) {
      const event = await this.next();
      if (fits(event)) return event;
    }
  }

  /** Reads so many. */
  async take(count: number): Promise<AgentEvent[]> {
    const events = [];
    while (events.length < count) events.push(await this.next());
    return events;
  }

  close(): void {
    this.#client.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The events in a stream of server-sent events; comments are passed over. */
async function* eventsOf(pieces: AsyncIterable<string>): AsyncGenerator<AgentEvent> {
  let rest = "";
  for await (const piece of pieces) {
    const blocks = (rest + piece).split("\n\n");
    rest = blocks.pop()!;
    for (const block of blocks) {
      const fields = new Map(
        block.split("\n").map((line): [string, string] => {
          const colon = line.indexOf(":");
          return [line.slice(0, colon), line.slice(colon + 1).trim()];
        }),
      );
      const data = fields.get("data");
      if (data === undefined) continue;
      const event: AgentEvent = JSON.parse(data);
      if (event.id !== fields.get("id") || event.type !== fields.get("event")) {
        throw new Error(`an event's fields are not those of its data: ${block}`);
      }
      yield event;
    }
  }
}
