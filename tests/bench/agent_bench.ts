import { AgentHost } from "./agent_host.ts";
import { compete, type Contestant, percentile, timingText } from "./contest.ts";
import { median } from "./paired.ts";
import { costOf } from "./process_cost.ts";
import { EventReader, SocketClient } from "./socket_client.ts";
import { Virtlockd, VirtlockdClient } from "./virtlockd.ts";

/**
 * The agent beside what does a part of its work: how long it takes to give a disk to a guest that runs and take it back,
 * to answer, to start, and to tell of a guest's end; and what it costs while nothing happens. All with the same guests,
 * which become more and more. Nothing is asserted: each figure has its target, or a yardstick of the same run.
 */
const binary = Deno.env.get("LOCKVISOR_BINARY");
const bareServer = Deno.env.get("LOCKVISOR_BARE_SERVER_BINARY");
if (binary === undefined || bareServer === undefined) throw new Error("run this by: deno task bench");

const ROUNDS = Number(Deno.env.get("LOCKVISOR_BENCH_ROUNDS") ?? 20);
const IDLE_SECONDS = Number(Deno.env.get("LOCKVISOR_BENCH_IDLE_SECONDS") ?? 60);
const MOST_GUESTS = Number(Deno.env.get("LOCKVISOR_BENCH_GUESTS") ?? 1000);
/** When the agent has settled after its start: its memory is looked at then. */
const SETTLED_SECONDS = 10;
const STARTS = 5;
const CLIENTS = 8;
const DEATHS = Math.min(100, MOST_GUESTS - CLIENTS);
const LISTS = 20;

const host = new AgentHost(binary);
globalThis.addEventListener("unload", () => host.end());

// Not as benchmarks of the runtime's own kind: it runs those at least three times.
await atRest(0);
await atWork(CLIENTS);
await atRest(Math.min(100, MOST_GUESTS));
await atRest(MOST_GUESTS);
await atWork(MOST_GUESTS);
await deaths();

/** What the agent needs to start, and while nothing happens. */
async function atRest(count: number): Promise<void> {
  await host.growTo(count);
  const starts: number[] = [];
  for (let start = 0; start < STARTS; start++) {
    if (start > 0) await host.endAgent();
    starts.push(await host.startAgent());
  }
  await seconds(Math.min(SETTLED_SECONDS, IDLE_SECONDS));
  const before = host.agentUse();
  await seconds(IDLE_SECONDS);
  const after = host.agentUse();
  const share = (after.processor - before.processor) / IDLE_SECONDS * 100;
  heading(`${count} guests, nothing happens`);
  console.log(
    `  start until it answers: ${median(starts).toFixed(0)} ms, median of ${STARTS} (target: 2000 ms)`,
  );
  console.log(`  resident memory: ${before.memory.toFixed(0)} MiB (target: 120 MiB)`);
  console.log(`  processor: ${share.toFixed(2)} % of a core over ${IDLE_SECONDS} s (target: 1 %)`);
  if (count === MOST_GUESTS) {
    const client = await SocketClient.connect(host.socket);
    for (let list = 0; list < LISTS; list++) await client.get("/v1/guests");
    client.close();
    console.log(
      `  resident memory after ${LISTS} x GET /v1/guests: ${host.agentUse().memory.toFixed(0)} MiB`,
    );
  }
  await host.endAgent();
}

/** What it takes to have something done, by one client and by several. */
async function atWork(count: number): Promise<void> {
  await host.growTo(count);
  await host.startAgent();
  heading(`${count} guests: a disk for a guest that runs, and back (x: beside virtlockd)`);
  const virtlockd = await Virtlockd.start(`${host.directory}/virtlockd-${count}`);
  const locking = await lockingContest(virtlockd);
  console.log(timingText(await compete(locking.contestants, ROUNDS)));
  locking.end();
  virtlockd.end();

  heading(`${count} guests: requests (x: beside a bare Deno.serve)`);
  const bareSocket = `${host.directory}/bare.sock`;
  const bare = new Deno.Command(bareServer!, { args: [bareSocket], stdin: "null" }).spawn();
  const asking = await askingContest(bareSocket);
  for (const contestants of asking.groups) console.log(timingText(await compete(contestants, ROUNDS)));
  asking.end();
  bare.kill("SIGKILL");
  await bare.status;
  Deno.removeSync(bareSocket);
  await host.endAgent();
}

/** Acquire and release of one disk: by virtlockd, by the agent, by the command line, and what is least of all. */
async function lockingContest(virtlockd: Virtlockd): Promise<{ contestants: Contestant[]; end(): void }> {
  const guests = host.guests.slice(0, CLIENTS);
  const agents = await Promise.all(guests.map(() => SocketClient.connect(host.socket)));
  const owners = guests.map(({ name, uuid, process: { pid } }) => ({ name, uuid, pid }));
  const others = await Promise.all(owners.map((owner) => VirtlockdClient.connect(virtlockd.socket, owner)));
  // virtlockd locks the disks themselves: so it has its own ones.
  const spares = guests.map(({ spare }) => `${spare}-virtlockd`);
  for (const spare of spares) Deno.writeTextFileSync(spare, "");
  const byVirtlockd = async (client: number) => {
    await others[client]!.acquire(spares[client]!);
    await others[client]!.release(spares[client]!);
  };
  const byAgent = async (client: number) => {
    const { name, spare } = guests[client]!;
    for (const way of ["acquire", "release"]) {
      await agents[client]!.post(`/v1/guests/${name}/${way}`, { disks: [{ path: spare }] });
    }
  };
  const contestants: Contestant[] = [
    { name: "virtlockd, connection open, 1 client", clients: 1, times: 25, operate: byVirtlockd },
    {
      name: "virtlockd with connecting, 1 client",
      clients: 1,
      times: 25,
      operate: async (client) => {
        const connection = await VirtlockdClient.connect(virtlockd.socket, owners[client]!);
        await connection.acquire(spares[client]!);
        await connection.release(spares[client]!);
        connection.close();
      },
    },
    { name: "agent, 1 client", clients: 1, times: 25, operate: byAgent },
    {
      name: `virtlockd, connection open, ${CLIENTS} clients`,
      clients: CLIENTS,
      times: 10,
      operate: byVirtlockd,
    },
    { name: `agent, ${CLIENTS} clients`, clients: CLIENTS, times: 10, operate: byAgent },
    {
      name: "lockvisor acquire; lockvisor release",
      clients: 1,
      times: 5,
      operate: (client) => {
        const { name, spare } = guests[client]!;
        for (const command of ["acquire", "release"]) host.command(command, name, "--disk", spare);
        return Promise.resolve();
      },
    },
    {
      name: "flock -n FILE true",
      clients: 1,
      times: 25,
      operate: (client) => {
        costOf("/usr/bin/flock", ["-n", spares[client]!, "true"], { PATH: "/usr/bin:/bin" });
        return Promise.resolve();
      },
    },
  ];
  const end = () => {
    for (const connection of [...agents, ...others]) connection.close();
  };
  return { contestants, end };
}

/** The cheapest answer of the agent, and that about one guest, by as many clients each. */
async function askingContest(bareSocket: string): Promise<{ groups: Contestant[][]; end(): void }> {
  await untilThere(bareSocket);
  const connect = (socket: string) =>
    Promise.all(Array.from({ length: CLIENTS }, () => SocketClient.connect(socket)));
  const [bare, agent] = await Promise.all([connect(bareSocket), connect(host.socket)]);
  const contestant = (
    name: string,
    clients: number,
    { times, connections, path }: {
      times: number;
      connections: SocketClient[];
      path: (client: number) => string;
    },
  ): Contestant => ({
    name: `${name}, ${clients} client${clients === 1 ? "" : "s"}`,
    clients,
    times,
    operate: async (client) => void await connections[client]!.get(path(client)),
  });
  const groups = [1, CLIENTS].map((clients) => [
    contestant("bare Deno.serve", clients, { times: 200, connections: bare, path: () => "/" }),
    contestant("GET /healthz", clients, { times: 200, connections: agent, path: () => "/healthz" }),
    contestant("GET /v1/guests/{name}", clients, {
      times: 25,
      connections: agent,
      path: (client) => `/v1/guests/${host.guests[client]!.name}`,
    }),
  ]);
  const end = () => {
    for (const connection of [...bare, ...agent]) connection.close();
  };
  return { groups, end };
}

/** How long a listener waits for the news of a guest's death; beside it, how long the process's parent waits. */
async function deaths(): Promise<void> {
  await host.growTo(MOST_GUESTS);
  await host.startAgent();
  await seconds(Math.min(SETTLED_SECONDS, IDLE_SECONDS));
  const events = await EventReader.connect(host.socket);
  const told: number[] = [];
  const reaped: number[] = [];
  for (const { name, process } of host.guests.splice(-DEATHS)) {
    await seconds(Math.random() / 5); // at any time between two looks of the agent at all locks
    const begun = performance.now();
    process.kill("SIGKILL");
    await Promise.all([
      events.guestEnded(name).then(() => told.push(performance.now() - begun)),
      process.status.then(() => reaped.push(performance.now() - begun)),
    ]);
  }
  events.close();
  await host.endAgent();
  told.sort((one, other) => one - other);
  heading(`${MOST_GUESTS} guests: from SIGKILL to guest-ended at a client, ${DEATHS} times (target: 50 ms)`);
  console.log(
    `  median ${median(told).toFixed(1)} ms, p99 ${percentile(told, 0.99).toFixed(1)} ms, worst ${
      told.at(-1)!.toFixed(1)
    } ms; the process's own parent hears of it after ${median(reaped).toFixed(1)} ms`,
  );
}

async function untilThere(socket: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (true) {
    try {
      return (await SocketClient.connect(socket)).close();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await seconds(0.01);
    }
  }
}

function seconds(count: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, count * 1000));
}

/** With the machine's load: figures of a busy machine are to be taken for what they are. */
function heading(text: string): void {
  console.log(`\n${text}; load ${Deno.loadavg()[0]!.toFixed(1)}`);
}
