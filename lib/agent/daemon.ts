import { dirname } from "node:path";
import { type AgentSettings, isLoopback } from "../config/agent_settings.ts";
import type { Settings } from "../config/settings.ts";
import { LockvisorError } from "../errors.ts";
import { openHostSession } from "../host_session.ts";
import { DEFAULT_LIMITS } from "../http/message.ts";
import { HttpServer } from "../http/server.ts";
import { VERSION } from "../version.ts";
import { Agent } from "./agent.ts";
import { type AgentLock, takeAgentLock } from "./agent_lock.ts";
import { closeLog, type LogDestination, logEvent, logLine, openLog } from "./agent_log.ts";
import { type AgentSocket, listenOnSocket, openDirectoryToGroup } from "./agent_socket.ts";
import { apiHandler } from "./api/api_handler.ts";
import { protocolError } from "./api/api_error.ts";
import { Hooks } from "./hooks.ts";
import { Memory } from "./memory.ts";
import { Metrics } from "./metrics.ts";
import { ServiceManager } from "./service_manager.ts";
import { Signals } from "./signals.ts";
import { statusPage } from "./status_page.ts";

/** What the daemon is started with. */
export interface DaemonOptions {
  /** Reads all settings anew. @throws {LockvisorError} `config` or `usage` */
  readSettings(): Promise<DaemonSettings>;
  user: { effectiveUid: number; hostName: string };
  log: LogDestination;
  environment(name: string): string | undefined;
  /** Told where it listens over TCP, once it does. */
  listening?: (url: string) => void;
}

/** All settings of the daemon. */
export interface DaemonSettings {
  settings: Settings;
  agent: AgentSettings;
}

/** How long running requests and hooks may take when the agent ends, in milliseconds. */
const GRACE_MS = 5000;
/** How long readers of events may take to read the last of them, in milliseconds. */
const READERS_GRACE_MS = 500;

/**
 * Runs the agent until it is told to end (SIGTERM, SIGINT). SIGHUP has it read its configuration anew.
 * @throws {LockvisorError} `unavailable` when another agent runs, and what its settings and directories are refused for
 */
export async function runDaemon(options: DaemonOptions): Promise<void> {
  const settings = await options.readSettings();
  openLog(options.log);
  const daemon = new Daemon(options, settings);
  try {
    await daemon.run();
  } finally {
    closeLog();
  }
}

class Daemon {
  readonly #options: DaemonOptions;
  readonly #manager: ServiceManager;
  readonly #metrics = new Metrics(VERSION);
  readonly #memory = new Memory();
  readonly #agent: Agent;
  readonly #hooks: Hooks;
  readonly #servers: HttpServer[] = [];
  #settings: DaemonSettings;
  #lock: AgentLock | undefined;
  #socket: AgentSocket | undefined;
  #socketServer: HttpServer | undefined;
  #isKeepingPlace = false;

  constructor(options: DaemonOptions, settings: DaemonSettings) {
    this.#options = options;
    this.#settings = settings;
    this.#manager = new ServiceManager(options.environment);
    this.#agent = new Agent({
      openSession: this.#sessionOpener(settings),
      settings: settings.agent,
      audited: (report, tookMs) => {
        this.#metrics.countAudit(report, tookMs / 1000);
        const { guests, examined, lost } = report;
        const took = tookMs.toFixed(1);
        logLine(
          "debug",
          `looked at ${guests} guests in ${took} ms: ${examined} exactly, ${lost} without locks`,
        );
        this.#manager.status(this.#status());
        this.#memory.tidyUp();
        void this.#keepPlace();
      },
    });
    this.#hooks = new Hooks(
      hookSettings(settings.agent),
      options.user.effectiveUid,
      (happening) => this.#agent.tell(happening),
    );
    this.#agent.events.listen((event) => {
      this.#metrics.countEvent(event);
      logEvent(event);
      this.#hooks.call(event);
    });
  }

  async run(): Promise<void> {
    const { settings, agent } = this.#settings;
    this.#agent.session.store.prepare(this.#options.user.effectiveUid);
    this.#lock = takeAgentLock(settings.runtimeDir);
    const signals = new Signals();
    try {
      await this.#agent.start();
      await this.#serve(agent);
      this.#agent.tell({ type: "agent-started", message: this.#started() });
      this.#manager.ready(this.#status());
      const watchdog = this.#watchdog();
      for await (const signal of signals.received()) {
        if (signal === "SIGHUP") await this.#reload();
        else break;
      }
      clearInterval(watchdog);
      await this.#end();
    } finally {
      signals.end();
      this.#socket?.close();
      this.#lock.close();
    }
  }

  #started(): string {
    const { agent: { socket } } = this.#settings;
    const { records } = this.#agent;
    return `lockvisor ${VERSION} watches ${countText(records.length)} and listens on ${socket}`;
  }

  #status(): string {
    const { records, bereft } = this.#agent;
    const guests = countText(records.length);
    return bereft === 0 ? `${guests}, all with their locks` : `${guests}, ${bereft} WITHOUT LOCKS`;
  }

  async #serveOnSocket(): Promise<void> {
    const { settings: { runtimeDir }, agent: { socket } } = this.#settings;
    if (dirname(socket) === runtimeDir) openDirectoryToGroup(runtimeDir);
    this.#socket = await listenOnSocket(socket);
    this.#socketServer = this.#addServer(this.#socket.listener, { audience: "socket" });
  }

  /** Somebody may have wiped the runtime directory: nobody would find the agent then, and a second one could start. */
  async #keepPlace(): Promise<void> {
    const [lock, socket, server] = [this.#lock, this.#socket, this.#socketServer];
    if (lock === undefined || socket === undefined || server === undefined || this.#isKeepingPlace) return;
    if (lock.isInForce() && socket.isThere()) return;
    this.#isKeepingPlace = true;
    try {
      if (!lock.isInForce()) {
        this.#lock = takeAgentLock(this.#settings.settings.runtimeDir);
        lock.close();
      }
      if (!socket.isThere()) {
        await this.#serveOnSocket();
        this.#servers.splice(this.#servers.indexOf(server), 1);
        await server.close(GRACE_MS);
      }
      this.#placeFault = undefined;
    } catch (error) {
      if (!(error instanceof LockvisorError)) throw error;
      if (this.#placeFault !== error.message) this.#agent.tell({ type: "problem", message: error.message });
      this.#placeFault = error.message;
    } finally {
      this.#isKeepingPlace = false;
    }
  }

  #placeFault: string | undefined;

  async #serve({ listen }: AgentSettings): Promise<void> {
    await this.#serveOnSocket();
    if (listen === undefined) return;
    let listener: Deno.TcpListener;
    try {
      listener = Deno.listen({ transport: "tcp", ...listen });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new LockvisorError(
        "unavailable",
        `cannot listen on ${listen.hostname}:${listen.port}: ${reason}`,
      );
    }
    this.#addServer(listener as unknown as Deno.Listener, {
      audience: "anybody",
      page: () => ({ status: 200, ...statusPage() }),
      isOwnName: (host) => isOwnName(host, listen.hostname),
    });
    const { hostname, port } = listener.addr;
    const url = `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}/`;
    logLine("info", `the status page is at ${url}`);
    this.#options.listening?.(url);
  }

  #addServer(
    listener: Deno.Listener,
    api: Pick<Parameters<typeof apiHandler>[0], "audience" | "page" | "isOwnName">,
  ): HttpServer {
    const handler = apiHandler({
      agent: this.#agent,
      metrics: this.#metrics,
      connections: () => this.#servers.reduce((sum, server) => sum + server.connections, 0),
      ...api,
    });
    const server = new HttpServer(listener, {
      handler,
      limits: DEFAULT_LIMITS,
      fail: (status, message) => ({ type: "application/json", body: protocolError(status, message) }),
      problem: (line) => logLine("error", line),
    });
    this.#servers.push(server);
    return server;
  }

  /** Tells the service manager that the agent works, as long as it does. */
  #watchdog(): ReturnType<typeof setInterval> | undefined {
    const { watchdogMs } = this.#manager;
    if (watchdogMs === undefined) return undefined;
    return setInterval(() => {
      if (this.#agent.health === "well") this.#manager.alive();
    }, watchdogMs);
  }

  /** What cannot be changed while it runs stays, and is told. What is wrong changes nothing. */
  async #reload(): Promise<void> {
    this.#manager.reloading();
    try {
      const next = await this.#options.readSettings();
      const fixed = FIXED.filter((key) => fixedValue(key, next) !== fixedValue(key, this.#settings));
      if (fixed.length > 0) {
        logLine("warning", `${fixed.join(", ")}: a change takes effect when the agent is restarted`);
      }
      const { settings, agent } = this.#settings;
      this.#settings = {
        settings: { ...next.settings, runtimeDir: settings.runtimeDir },
        agent: { ...next.agent, socket: agent.socket, listen: agent.listen },
      };
      this.#hooks.settings = hookSettings(this.#settings.agent);
      await this.#agent.reload({
        openSession: this.#sessionOpener(this.#settings),
        settings: this.#settings.agent,
      });
      logLine("info", "the configuration was read anew");
    } catch (error) {
      if (!(error instanceof LockvisorError)) throw error;
      logLine("error", `the configuration stays as it was: ${error.message}`);
    }
    this.#manager.ready(this.#status());
  }

  async #end(): Promise<void> {
    this.#manager.stopping();
    this.#agent.tell({ type: "agent-stopping", message: "the agent ends; guests and their locks stay" });
    await this.#agent.events.end(READERS_GRACE_MS);
    await Promise.all(this.#servers.map((server) => server.close(GRACE_MS)));
    await this.#agent.end();
    await this.#hooks.end(GRACE_MS);
  }

  #sessionOpener({ settings }: DaemonSettings) {
    const { user } = this.#options;
    return () => openHostSession(settings, { ...user, warn: (line) => logLine("warning", line) });
  }
}

function countText(guests: number): string {
  return guests === 1 ? "1 guest" : `${guests} guests`;
}

/** Settings that the agent takes when it starts, and only then. */
const FIXED = ["runtime-dir", "socket", "listen"] as const;

function fixedValue(key: typeof FIXED[number], { settings, agent }: DaemonSettings): string {
  switch (key) {
    case "runtime-dir":
      return settings.runtimeDir;
    case "socket":
      return agent.socket;
    case "listen":
      return JSON.stringify(agent.listen);
  }
}

function hookSettings({ hooks, hookTimeoutMs }: AgentSettings) {
  return { directory: hooks, timeoutMs: hookTimeoutMs };
}

/** A page on the web must not reach the agent under a name that leads here; an address leads nowhere else. */
export function isOwnName(host: string, listened: string): boolean {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+))(?::\d{1,5})?$/.exec(host);
  if (match === null) return false;
  const name = (match[1] ?? match[2]!).toLowerCase();
  return match[1] !== undefined || /^\d{1,3}(\.\d{1,3}){3}$/.test(name) || name === listened.toLowerCase() ||
    isLoopback(name);
}
