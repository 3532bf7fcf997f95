import assert from "node:assert/strict";
import { openDescriptors } from "../lib/process/descriptors.ts";
import { get, latin1, type RawClient, ServedSocket, signalled } from "./support/http_client.ts";
import { chunked, post } from "./support/http_requests.ts";
import { until } from "./support/until.ts";

/** Sends a byte every few milliseconds until the server has had enough. */
async function drip(client: RawClient, byte: string): Promise<void> {
  for (let sent = 0; sent < 2_000; sent++) {
    try {
      await client.send(byte);
    } catch {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail("it takes one byte after the other without end");
}

for (
  const [what, start] of [
    ["head", "GET /"],
    ["body", post(["Content-Length: 100000"])],
    ["body", chunked("ffff\r\n")],
    ["body", post(["Expect: 100-continue", "Content-Length: 1000"])],
  ] as const
) {
  Deno.test(`a slow ${what} gets 408: ${JSON.stringify(start.slice(0, 90))}`, async () => {
    const limits = { headMs: 100, bodyMs: 100, idleMs: 60_000 };
    await using served = new ServedSocket({ limits });
    for (const dripping of [false, true]) {
      const client = await served.connect();
      await client.send(get("/"));
      await client.answer();
      await client.send(start);
      const dripped = dripping ? drip(client, "x") : Promise.resolve();
      let answer = await client.answer();
      if (answer.status === 100) answer = await client.answer();
      assert.equal(answer.status, 408);
      assert.match(answer.body, new RegExp(`the request's ${what} took too long`));
      assert.equal((await client.rest()).length, 0);
      client.close();
      await dripped;
    }
    await until("all are let go", () => served.server.connections <= 1);
  });
}

Deno.test("connections on which nothing comes are closed without a word", async () => {
  await using served = new ServedSocket({ limits: { headMs: 100, idleMs: 150 } });
  const fresh = await served.connect();
  const idle = await served.connect();
  await idle.send(get("/"));
  await idle.answer();
  assert.equal((await fresh.rest()).length, 0);
  assert.equal((await idle.rest()).length, 0);
  assert.equal(served.server.connections, 0);
});

/** How many descriptors this process has open. */
function descriptors(): number {
  const view = openDescriptors("self");
  assert.equal(view.kind, "seen");
  return view.kind === "seen" ? view.targets.size : 0;
}

Deno.test("connections over the limit get 503, and leave nothing behind", async () => {
  await using served = new ServedSocket({ limits: { connections: 10 } });
  await served.ask(get("/"));
  await until("it is let go", () => served.server.connections === 0);
  const before = descriptors();
  const held = await Promise.all(Array.from({ length: 10 }, () => served.connect()));
  await until("all are served", () => served.server.connections === 10);
  const statuses: number[] = [];
  for (let round = 0; round < 3; round++) {
    const flood = await Promise.all(Array.from({ length: 200 }, () => served.connect()));
    // Half of them stay, and see the answer all the same; a quarter sends what nobody reads.
    for (const [number, client] of flood.entries()) {
      if (number % 4 === 0) await client.send(get("/")).catch(() => {});
      statuses.push((await client.answer()).status);
      if (number % 2 === 0) client.close();
    }
    for (const client of flood) client.close();
  }
  assert.deepEqual(new Set(statuses), new Set([503]));
  assert.equal(served.server.connections, 10);
  for (const client of held) {
    await client.send(get("/still"));
    assert.equal((await client.answer()).body, "/still");
    client.close();
  }
  await until("every descriptor is back", () => descriptors() === before);
  assert.equal((await served.ask(get("/"))).status, 200);
  assert.deepEqual(served.problems, []);
});

Deno.test("memory and descriptors return to their level after clients that go without a word", async () => {
  const { before, after, problems } = await runProgram(["--v8-flags=--expose-gc"], "http_levels.ts");
  assert.equal(after.descriptors, before.descriptors);
  assert.ok(after.bytes < before.bytes + 3_000_000, `${before.bytes} bytes, then ${after.bytes}`);
  assert.deepEqual(problems, []);
});

Deno.test("clients that never read are dropped", async () => {
  let returned = 0;
  let aborted = 0;
  await using served = new ServedSocket({
    limits: { writeMs: 100 },
    handler: ({ path, signal }) => {
      signal.addEventListener("abort", () => aborted++);
      if (path !== "/stream") return { status: 200, body: "x".repeat(1_000_000) };
      return {
        status: 200,
        stream: (async function* () {
          try {
            while (true) yield "x".repeat(10_000);
          } finally {
            returned++;
          }
        })(),
      };
    },
  });
  const clients = [];
  for (const request of [get("/large"), get("/stream"), get("/large").repeat(1000)]) {
    const client = await served.connect();
    await client.send(request);
    clients.push(client);
  }
  await until("all are given up", () => aborted === 3 && returned === 1);
  // Once the clients take their part, what the runtime before 2.9 still had to write is written, and all is let go.
  for (const client of clients) assert.ok((await client.rest()).length < 1_000_000, "the answer is cut off");
  await until("all are let go", () => served.server.connections === 0);
  assert.deepEqual(served.problems, []);
});

Deno.test("requests sent ahead of their answers do not fill the memory", async () => {
  const go = signalled();
  let handled = 0;
  await using served = new ServedSocket({
    handler: async ({ path }) => {
      handled++;
      if (path === "/first") await go.promise;
      return { status: 200 };
    },
  });
  const client = await served.connect();
  await client.send(get("/first"));
  await until("the first is being answered", () => handled === 1);
  let sent = 0;
  const many = get("/more").repeat(1000);
  const sending = (async () => {
    while (handled === 1) {
      await client.send(many);
      sent += many.length;
    }
  })();
  let before = -1;
  await until("the server takes no more", async () => {
    const settled = sent === before;
    before = sent;
    await new Promise((resolve) => setTimeout(resolve, 50));
    return settled;
  });
  assert.ok(sent < 2_000_000, `${sent} bytes`);
  go.give();
  const answers = client.rest();
  await sending;
  await client.connection.closeWrite();
  const statuses = latin1(await answers).match(/HTTP\/1.1 \d+/g) ?? [];
  assert.equal(statuses.length, 1 + sent / get("/more").length);
});

Deno.test("without descriptors connections wait, and are served when there are some again", async () => {
  const { problems, served, attempts } = await runProgram([], "http_exhausted.ts");
  assert.ok(problems.length >= 1, "the want of descriptors is told");
  assert.ok(problems.length <= 3, "but not again and again");
  assert.match(problems[0], /^no connection can be accepted: too many open descriptors/);
  assert.ok(attempts < 60, `${attempts} attempts to accept: it does not spin`);
  assert.equal(served, true);
});

/** What a program of tests/support prints, run with few descriptors. */
// deno-lint-ignore no-explicit-any
async function runProgram(flags: string[], name: string): Promise<any> {
  const program = new URL(`./support/${name}`, import.meta.url).pathname;
  const run = [Deno.execPath(), "run", "-A", "--no-check", ...flags, program];
  const { code, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-c", 'ulimit -n 400 && exec "$@"', "sh", ...run],
    env: { DENO_NO_UPDATE_CHECK: "1" },
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}
