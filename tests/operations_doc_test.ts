import assert from "node:assert/strict";
import { statusOf } from "../lib/agent/api/api_error.ts";
import { closeLog, logEvent, openLog } from "../lib/agent/agent_log.ts";
import { EVENT_TYPES } from "../lib/agent/event.ts";
import { EVENTS } from "../lib/agent/page/words.js";
import { mergeAgentSettings } from "../lib/config/agent_settings.ts";
import { parseDuration } from "../lib/config/duration.ts";
import { type ErrorCode, LockvisorError } from "../lib/errors.ts";
import { ROOT } from "../scripts/project.ts";
import { documents, quoted, section, tableRows, textOf } from "./support/documents.ts";
import { until } from "./support/until.ts";
import { BINARY, World } from "./support/world.ts";

/*
 * docs/operations.md says what there is to see and to ask for; operators copy it. What it names exists, and what exists it
 * names, by the word of an agent that runs.
 */

const PAGE = "docs/operations.md";

/** An agent that runs, and what it answers on its socket. */
class RunningAgent implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #client: Deno.HttpClient;

  private constructor(world: World, hooks: string) {
    this.#child = new Deno.Command(BINARY, {
      args: ["daemon", "--hooks", hooks, "--log-level", "error"],
      clearEnv: true,
      env: world.environment,
      stdin: "null",
      stdout: "null",
    }).spawn();
    const path = `${world.runtimeDir}/lockvisor.sock`;
    this.#client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  }

  static async start(world: World, hooks = `${world.directory}/hooks`): Promise<RunningAgent> {
    const agent = new RunningAgent(world, hooks);
    await until("the agent answers", async () => {
      try {
        return await agent.get("/healthz") !== "";
      } catch {
        return false;
      }
    });
    return agent;
  }

  async get(path: string): Promise<string> {
    const response = await fetch(`http://localhost${path}`, { client: this.#client });
    return await response.text();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
    this.#child.kill("SIGTERM");
    await this.#child.status;
  }
}

/** Metrics as an agent tells them: the type of each, and its labels. */
function toldMetrics(text: string): Map<string, string> {
  const types = Array.from(
    text.matchAll(/^# TYPE (\S+) (\S+)$/gm),
    ([, name, type]) => [name!, type!] as const,
  );
  return new Map(types.map(([name, type]) => {
    const suffix = type === "histogram" ? "_count" : "";
    const [, labels = ""] = new RegExp(`^${name}${suffix}(?:\\{(.*)\\})? `, "m").exec(text) ?? [];
    const names = Array.from(labels.matchAll(/(\w+)="/g), ([, label]) => label!);
    return [names.length === 0 ? name : `${name}{${names.sort().join(",")}}`, type];
  }));
}

Deno.test("operations: its table has every metric of the agent, with type and labels, and no other", async () => {
  await using world = await World.create();
  await using agent = await RunningAgent.start(world);
  await agent.get("/v1/guests"); // what is counted by route has a route then
  const text = await agent.get("/metrics");
  for (const type of EVENT_TYPES) {
    assert.match(text, new RegExp(`^lockvisor_events_total\\{type="${type}"\\} \\d`, "m"));
  }
  const told = toldMetrics(text);
  assert.ok(told.size > 8, `${[...told.keys()]}`);
  const written = tableRows(section(PAGE, "## Monitoring")).map(([metric, type]) => {
    const [, name, labels] = /^(\w+)(?:\{(.*)\})?$/.exec(quoted(metric!)[0]!)!;
    return [labels === undefined ? name! : `${name}{${labels.split(",").sort().join(",")}}`, type!] as const;
  });
  assert.deepEqual(Object.fromEntries(written), Object.fromEntries(told));

  const names = new Set([...told.keys()].map((metric) => metric.replace(/\{.*/, "")));
  for (const document of documents()) {
    for (const [word] of textOf(document).matchAll(/\blockvisor_[a-z]\w*/g)) {
      assert.ok(names.has(word.replace(/_(bucket|sum|count)$/, "")), `${document}: ${word}`);
    }
  }
});

Deno.test("operations: its table has every type of event, with its level in the log", () => {
  const levels = new Map<string, string>();
  openLog({
    format: "json",
    level: "debug",
    colours: "unwanted",
    write(line) {
      const { event, level } = JSON.parse(line);
      levels.set(event, level);
    },
  });
  try {
    for (const type of EVENT_TYPES) {
      logEvent({ type, id: "e-1", time: "", guest: null, resources: [], holder: null, message: "" });
    }
  } finally {
    closeLog();
  }
  const written = tableRows(section(PAGE, "## Events")).flatMap(([types, , level]) =>
    quoted(types!).map((type) => [type, level!] as const)
  );
  assert.deepEqual(written.map(([type]) => type).sort(), [...EVENT_TYPES].sort());
  for (const [type, level] of written) if (level !== "") assert.equal(level, levels.get(type), type);
  // What the rules for alerts ask for.
  for (const [, type] of textOf(PAGE).matchAll(/lockvisor_events_total\{type="([^"]*)"/g)) {
    assert.ok((EVENT_TYPES as readonly string[]).includes(type!), type);
  }
});

Deno.test("status page: it has words for every type of event; it listens to those only", () => {
  assert.deepEqual(Object.keys(EVENTS).sort(), [...EVENT_TYPES].sort());
});

Deno.test("operations: hooks get the variables that it names beside the agent's own", async () => {
  await using world = await World.create();
  const hooks = `${world.directory}/hooks`;
  await Deno.mkdir(hooks, { mode: 0o755 });
  const seen = `${world.directory}/seen`;
  await Deno.writeTextFile(`${hooks}/env`, `#!/bin/sh\nenv >${seen}.new && mv ${seen}.new ${seen}\n`, {
    mode: 0o755,
  });
  await using _agent = await RunningAgent.start(world, hooks);
  const exists = () => Deno.stat(seen).then(() => true, () => false);
  await until("the hook was called", exists);
  const names = (await Deno.readTextFile(seen)).trim().split("\n").map((line) => line.split("=")[0]!);
  const added = names.filter((name) =>
    !Object.hasOwn(world.environment, name) && !["PWD", "OLDPWD", "SHLVL", "_"].includes(name)
  );
  const [bullet] = /^- \*\*Environment\*\*[^]*?(?=^- )/m.exec(section(PAGE, "## Hooks"))!;
  assert.deepEqual(quoted(bullet).filter((word) => /^[A-Z_]+$/.test(word)).sort(), added.sort());
});

Deno.test("operations: its table has every request that the agent describes, and its examples ask for these", async () => {
  await using world = await World.create();
  await using agent = await RunningAgent.start(world);
  const { paths } = JSON.parse(await agent.get("/openapi.json"));
  const described = Object.entries(paths as Record<string, object>).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`)
  );
  const rows = tableRows(section(PAGE, "## The interface")).map(([request]) => quoted(request!)[0]!)
    .filter((request) => /^(GET|POST) /.test(request));
  assert.deepEqual(rows.sort(), described.sort());

  const patterns = Object.keys(paths).map((path) =>
    new RegExp(`^${RegExp.escape(path).replace("\\{guest\\}", "[^/]+")}$`)
  );
  for (const document of documents()) {
    for (const [, path] of textOf(document).matchAll(/http:\/\/localhost(\/[\w/.-]*)/g)) {
      assert.ok(patterns.some((pattern) => pattern.test(path!)), `${document}: ${path}`);
    }
  }
});

Deno.test("operations: errors have the statuses of its table", () => {
  const written = tableRows(section(PAGE, "## The interface")).flatMap(([codes, , status]) =>
    /^\d{3}\b/.test(status ?? "")
      ? quoted(codes!).filter((word) => /^[a-z-]+$/.test(word)).map((code) => ({
        code,
        status: Number(status!.slice(0, 3)),
      }))
      : []
  );
  assert.equal(written.length, 9);
  for (const { code, status } of written) {
    assert.equal(statusOf(new LockvisorError(code as ErrorCode, "")), status, code);
  }
});

Deno.test("operations: its table has every key of the agent, with its default", () => {
  const sources = { environment: () => undefined, effectiveUid: 0, cwd: "/" };
  const { auditIntervalMs, reconcileIntervalMs, hookTimeoutMs, hooks, listen, socket } = mergeAgentSettings(
    { sources: { ...sources, flags: {} }, flags: {}, runtimeDir: "/run/lockvisor", listening: "loopback" },
    { agent: {} },
  );
  assert.equal(listen, undefined);
  assert.equal(socket, "/run/lockvisor/lockvisor.sock");
  const rows = tableRows(section(PAGE, "## First steps with the agent"));
  const written = Object.fromEntries(
    rows.map(([key, standard]) => [quoted(key!)[0]!, quoted(standard!)[0] ?? standard!]),
  );
  assert.deepEqual(Object.keys(written).sort(), [
    "audit-interval",
    "hook-timeout",
    "hooks",
    "listen",
    "reconcile-interval",
    "socket",
  ]);
  assert.equal(parseDuration("reconcile-interval", written["reconcile-interval"]!), reconcileIntervalMs);
  assert.equal(parseDuration("audit-interval", written["audit-interval"]!), auditIntervalMs);
  assert.equal(parseDuration("hook-timeout", written["hook-timeout"]!), hookTimeoutMs);
  assert.deepEqual([written["hooks"], written["listen"], written["socket"]], [
    hooks,
    "none",
    "lockvisor.sock",
  ]);
});

Deno.test("operations: capabilities and final exit statuses are those of the units", () => {
  const unit = (name: string, key: string) =>
    new RegExp(`^${key}=(.*)$`, "m").exec(Deno.readTextFileSync(`${ROOT}/systemd/${name}`))![1]!.split(" ")
      .sort();
  const security = tableRows(section(PAGE, "## Security")).flatMap(([first]) => quoted(first!));
  const capabilities = security.filter((word) => word.startsWith("CAP_")).sort();
  assert.deepEqual(capabilities, unit("lockvisor.service", "CapabilityBoundingSet"));
  const [, statuses] = /but not after ([\d, and]+):/.exec(section(PAGE, "## Guests as units"))!;
  assert.deepEqual(
    statuses!.match(/\d+/g)!.sort(),
    unit("lockvisor-guest@.service", "RestartPreventExitStatus"),
  );
});
