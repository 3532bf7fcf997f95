import assert from "node:assert/strict";
import type { AgentEvent } from "../lib/agent/event.ts";
import { EventLog } from "../lib/agent/event_log.ts";
import { eventResult } from "../lib/agent/api/schemas.ts";
import { Agent, type EventReader } from "./support/agent.ts";
import { until } from "./support/until.ts";
import { changeAccess } from "./support/change_access.ts";
import { BINARY, World } from "./support/world.ts";

/** The number of an event in its agent's life. */
function numberOf({ id }: AgentEvent): number {
  return Number(/-(\d+)$/.exec(id)![1]);
}

function numbersOf(events: readonly AgentEvent[]): number[] {
  return events.map(numberOf);
}

function counting(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, at) => from + at);
}

/** Adds breaks of other hosts to the lockspace's log: each is an event. */
async function logBreaks(world: World, count: number, reason: string): Promise<void> {
  const line = JSON.stringify({
    action: "break",
    host: { id: "h", name: "far" },
    target: "/disk",
    holders: [{ guest: "vm9", host: "lost", pid: 7, since: "2026-01-01T00:00:00Z" }],
    reason,
  });
  await Deno.writeTextFile(`${world.lockspace}/audit.log`, `${line}\n`.repeat(count), { append: true });
}

Deno.test("what the command line does without the agent is told, in order", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await using agent = await Agent.start(world);
  using events = await agent.events("last=1000");
  assert.equal((await events.next()).type, "agent-started");
  const done = async (...args: string[]) => {
    const { code, stderr } = await world.run(args);
    assert.equal(code, 0, stderr);
  };
  const told = async (wanted: [type: string, disks: string[]][]) => {
    const read = await events.take(wanted.length);
    assert.deepEqual(read.map(({ type, resources }) => [type, resources.map(({ name }) => name)]), wanted);
    return read;
  };
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  for (const event of await told([["guest-started", []], ["lock-granted", [a]]])) {
    assert.deepEqual([event.guest?.name, event.guest?.pid], ["vm1", guest.pid]);
  }
  await done("acquire", "vm1", "--disk", `${b},access=shared`);
  const [granted] = await told([["lock-granted", [b]]]);
  assert.equal(granted?.resources[0]?.access, "shared");
  assert.equal((await changeAccess(world, ["vm1", a + ",access=readonly", b])).code, 0);
  const [changed] = await told([["lock-changed", [a, b]]]);
  assert.deepEqual(changed?.resources.map(({ access }) => access), ["readonly", "exclusive"]);
  await done("release", "vm1", "--disk", b);
  await told([["lock-released", [b]]]);
  for (const words of [["pause", "vm1"], ["pause", "vm1", "--release"]]) {
    await done(...words);
    await told([["guest-paused", []]]);
    await done("resume", "vm1");
    await told([["guest-resumed", []]]);
  }
  const plain = new Deno.Command("sleep", { args: ["60"] }).spawn();
  await done("adopt", "--pid", `${plain.pid}`, "--name", "vm2", "--disk", b);
  await told([["guest-started", []], ["lock-granted", [b]]]);
  plain.kill("SIGKILL");
  await plain.status;
  const [ended] = await told([["guest-ended", []]]);
  assert.equal(ended?.guest?.name, "vm2");
  await done("stop", "vm1");
  await told([["guest-ended", []]]);

  const { seen } = events;
  assert.deepEqual(numbersOf(seen), counting(1, seen.length));
  assert.equal(new Set(seen.map(({ id }) => id.replace(/\d+$/, ""))).size, 1, "one epoch");
  for (const event of seen) assert.deepEqual(eventResult.parse(event), event);
  assert.deepEqual(seen.map(({ time }) => time), seen.map(({ time }) => time).toSorted());
  await agent.end();
  await told([["agent-stopping", []]]);
  await assert.rejects(events.next(), /have ended/);
  const logged = agent.log.filter(({ event }) => event !== undefined);
  assert.deepEqual(logged.map(({ id, event }) => [id, event]), seen.map(({ id, type }) => [id, type]));
});

Deno.test("a reader goes on where it was, and learns what it has missed", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const args = ["--audit-interval", "100ms"];
  await using agent = await Agent.start(world, args);
  using one = await agent.events();
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const [started, granted] = await one.take(2) as [AgentEvent, AgentEvent];
  const begins = async (query: string, headers: Record<string, string> = {}) => {
    using reader = await agent.events(query, headers);
    return await reader.next();
  };
  assert.deepEqual(await begins("", { "last-event-id": started.id }), granted);
  assert.deepEqual(await begins(`after=${started.id}`), granted);
  assert.deepEqual(await begins(`after=x&last=9`, { "last-event-id": started.id }), granted);
  assert.deepEqual(await begins("last=1"), granted);
  assert.deepEqual(await begins("last=2"), started);
  assert.equal(numberOf(await begins("last=9999")), 1);

  using quiet = await agent.events(`after=${granted.id}`);
  using none = await agent.events("last=0");
  assert.equal((await world.run(["pause", "vm1"])).code, 0);
  const paused = await one.next();
  assert.equal(paused.type, "guest-paused");
  assert.deepEqual([await quiet.next(), await none.next()], [paused, paused], "all readers get the same");

  for (const id of ["nonsense", "abc-3", granted.id.replace(/\d+$/, "999"), `${granted.id}0000000000000`]) {
    using reader = await agent.events("", { "last-event-id": id });
    const [missed, first] = await reader.take(2) as [AgentEvent, AgentEvent];
    assert.deepEqual([missed.type, numberOf(missed), numberOf(first)], ["events-missed", 0, 1], id);
  }
  for (const last of [604, 1204]) {
    await logBreaks(world, 600, "many at once");
    await one.until((event) => numberOf(event) === last);
  }
  using late = await agent.events(`after=${granted.id}`);
  await late.until((event) => numberOf(event) === 1204);
  const [gap, ...rest] = late.seen;
  assert.deepEqual([gap?.type, numberOf(gap!)], ["events-missed", 204]);
  assert.deepEqual(numbersOf(rest), counting(205, 1204), "the last thousand");
  const [broken] = rest;
  assert.deepEqual([broken?.type, broken?.holder?.name, broken?.holder?.host], [
    "lock-broken",
    "vm9",
    "lost",
  ]);
  assert.deepEqual(
    numbersOf([await begins(`after=${gap!.id}`)]),
    [205],
    "who has read of the gap has read it",
  );

  agent.kill("SIGKILL");
  await agent.finished();
  await using next = await Agent.start(world, args);
  using again = await next.events("", { "last-event-id": granted.id });
  const [anew, ...found] = await again.take(3);
  assert.match(anew!.message, /the agent was started anew since/);
  const types = found.map(({ type }) => type);
  assert.deepEqual(types, ["guest-found", "agent-started"]);
});

Deno.test("a reader that is slow misses events, is told where, and hinders no other", async () => {
  await using world = await World.create();
  await using agent = await Agent.start(world, ["--audit-interval", "100ms"]);
  const [slow, fast] = [await agent.events(), await agent.events()];
  const readTo = async (reader: EventReader, last: number) => {
    while (numberOf(await reader.next()) < last);
  };
  await logBreaks(world, 600, "x".repeat(1000));
  await readTo(fast, 601);
  await logBreaks(world, 900, "y".repeat(800));
  await readTo(fast, 1501);
  assert.deepEqual(numbersOf(fast.seen), counting(2, 1501));
  assert.equal((await agent.get("/v1/guests")).status, 200);
  await readTo(slow, 1501);
  const gaps = slow.seen.filter(({ type }) => type === "events-missed");
  assert.ok(gaps.length > 0, "the kernel has taken all of it: make it more");
  let last = 1;
  for (const event of slow.seen) {
    const number = numberOf(event);
    if (event.type === "events-missed") assert.ok(number > last);
    else assert.equal(number, last + 1, "no gap without a word");
    last = number;
  }
  slow.close();
  fast.close();
});

Deno.test("a lock that was broken by another host is told", async () => {
  await using there = await World.create({ hostId: "hv-dead" });
  await using here = await World.create({ hostId: "hv-alive", lockspace: there.lockspace });
  const disk = await there.disk("a");
  const storage = { LOCKVISOR_STORAGE: `san1=${there.directory}` };
  await there.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"], { env: storage });
  await using agent = await Agent.start(here, ["--audit-interval", "100ms"], { env: storage });
  using events = await agent.events();
  await Deno.writeTextFile(
    `${there.lockspace}/audit.log`,
    [
      "no JSON",
      "null",
      '{"action":"break","target":"/x","holders":[null,7,{"guest":{}}],"reason":"odd"}',
      "",
    ].join("\n"),
  );
  const odd = await events.next();
  assert.deepEqual(odd, eventResult.parse(odd));
  // In a pid namespace of its own this kernel shows none of the guest's locks: as from another host.
  const broken = await here.execute(
    "unshare",
    ["--fork", "--pid", "--mount-proc", BINARY, "break", disk, "--reason", "power was cut"]
      .concat("--host-is-fenced", "hv-dead"),
    { env: storage },
  );
  assert.equal(broken.code, 0, broken.stderr);
  const event = await events.until("lock-broken");
  assert.deepEqual([event.holder?.name, event.holder?.alive], ["vm1", false]);
  assert.match(event.message, /a of guest "vm1" of host .* were broken on host .*: power was cut$/);
  assert.deepEqual(event, eventResult.parse(event));
});

Deno.test("whoever follows misses nothing from then on, and is forgotten when it goes", async () => {
  const log = new EventLog("e");
  const controller = new AbortController();
  const reader = log.follow({ kind: "now" }, controller.signal);
  const unread = log.follow({ kind: "now" }, controller.signal);
  log.tell({ type: "problem", message: "one" });
  assert.equal((await reader.next()).value.message, "one");
  const waiting = reader.next();
  controller.abort();
  assert.equal((await waiting).done, true);
  log.tell({ type: "problem", message: "two" });
  assert.equal((await unread.next()).done, true);
});

Deno.test("a stream that nobody reads any more is let go", async () => {
  await using world = await World.create();
  await using agent = await Agent.start(world);
  const open = async () =>
    Number(/^lockvisor_http_connections (\d+)$/m.exec((await agent.get("/metrics")).body)![1]);
  const before = await open();
  const readers = await Promise.all(Array.from({ length: 30 }, () => agent.events()));
  assert.equal(await open(), before + 30);
  for (const reader of readers) reader.close();
  await until("the connections are let go", async () => await open() === before, 5000);
});
