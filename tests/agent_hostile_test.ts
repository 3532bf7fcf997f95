import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import {
  type Address,
  type Answer,
  formatRequest,
  HttpClient,
  type Request,
} from "./support/agent_client.ts";
import { BODIES, get, post, REQUESTS } from "./support/hostile_requests.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/** Sends bytes, and reads what is answered, although the server may not have taken all of them. */
async function sent(address: Address, ...parts: (string | Uint8Array)[]): Promise<Answer> {
  using client = await HttpClient.connect(address);
  try {
    for (const part of parts) await client.send(part);
  } catch { /* it was refused before its end */ }
  return await client.answer();
}

/** A refusal is JSON in one line, without anything that steers a terminal. */
function assertRefusal(answer: Answer, status: number, label: string): void {
  assert.equal(answer.status, status, `${label}: ${answer.body.slice(0, 500)}`);
  assert.equal(answer.headers.get("content-type"), "application/json", label);
  assert.match(answer.body, /^\P{Cc}+\n$/u, label);
  const { error } = answer.json;
  assert.deepEqual([typeof error.code, typeof error.message], ["string", "string"], label);
  assert.ok(error.message.length < 10_000, label);
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(error.message, /[\u0000-\u001f\u007f-\u009f]/, label);
}

/** Open descriptors of a process. */
function descriptors(pid: number): number {
  return [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
}

/** What a process has in memory, in MiB. proc_pid_status(5) */
function memory(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]) / 1024;
}

/** An agent with a guest, of which nothing may be left over when its clients are gone. */
async function besieged(attack: (agent: Agent, tcp: Address, world: World) => Promise<void>): Promise<void> {
  await using world = await World.create();
  await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  await using agent = await Agent.start(world, ["--listen", "127.0.0.1:0", "--audit-interval", "1s"]);
  const tcp = await agent.tcp();
  for (let round = 0; round < 50; round++) await agent.get("/v1/guests"); // what is made once is made
  const [opened, used] = [descriptors(agent.pid), memory(agent.pid)];
  await attack(agent, tcp, world);
  await until("its descriptors are what they were", () => descriptors(agent.pid) <= opened, 15_000);
  // It is tidied up when the locks are looked at. What V8 has compiled meanwhile stays.
  await until(`its memory is what it was, ${used} MiB`, () => memory(agent.pid) < used + 48, 15_000);
  console.log(`memory: ${used.toFixed(0)} MiB before, ${memory(agent.pid).toFixed(0)} MiB afterwards`);
  for (const address of [agent.address, tcp]) {
    const answer = await sent(address, get("/v1/guests"));
    assert.deepEqual([answer.status, answer.json.guests[0]?.name], [200, "vm1"]);
  }
  assert.deepEqual(agent.log.filter(({ level }) => level === "error"), [], "its log is quiet");
}

Deno.test("what is no proper request is refused with its status, over the socket and over TCP", async () => {
  await besieged(async (agent, tcp) => {
    for (const [label, bytes, status] of REQUESTS) {
      for (const address of [agent.address, tcp]) {
        assertRefusal(await sent(address, bytes), status, `${label}, ${address.transport}`);
      }
    }
    for (const [label, body, status] of BODIES) {
      const request: Request = { method: "POST", path: "/v1/check", body };
      assertRefusal(await sent(agent.address, formatRequest(request)), status, label);
      assertRefusal(await sent(tcp, formatRequest(request)), status === 413 ? 413 : 403, `${label}, tcp`);
    }
    const chunk = `10000\r\n${"x".repeat(0x10000)}\r\n`;
    const chunked = [post("transfer-encoding: chunked"), ...Array(40).fill(chunk)];
    assertRefusal(await sent(agent.address, ...chunked), 413, "chunks without end");
    assert.equal(({} as { disks?: unknown }).disks, undefined);
  });
});

Deno.test("slow, silent and vanishing clients are let go, and hinder nobody", async () => {
  await besieged(async (agent, tcp, world) => {
    const halves = [
      { bytes: "GET /healthz HTTP/1.1\r\nhost: lo", status: 408 },
      { bytes: post("content-type: application/json", "content-length: 100") + '{"disks":', status: 408 },
      { bytes: post("transfer-encoding: chunked") + "40\r\n{", status: 408 },
    ];
    const slow = [agent.address, tcp].flatMap((address) =>
      halves.map(async ({ bytes, status }) => {
        using client = await HttpClient.connect(address);
        await client.send(bytes);
        // A byte now and then wins nobody more time.
        const dripping = setInterval(() => client.send("c").catch(() => {}), 1000);
        try {
          assertRefusal(await client.answer(), status, `${address.transport}: ${bytes}`);
        } finally {
          clearInterval(dripping);
        }
      })
    );
    const silent = [agent.address, tcp].map(async (address) => {
      using client = await HttpClient.connect(address);
      assert.equal(await client.rest(), "", "closed without a word");
    });
    for (const address of [agent.address, tcp]) {
      for (const { bytes } of halves) {
        using client = await HttpClient.connect(address);
        await client.send(bytes);
        await client.closeWrite();
        assertRefusal(await client.answer(), 400, `cut off: ${bytes}`);
      }
      using client = await HttpClient.connect(address);
      await client.send(get("/v1/guests/vm1"));
      await client.closeWrite();
      assert.equal((await client.answer()).status, 200, "half-closed behind a whole request");
    }
    const trap = ["sh", "-c", 'trap "" TERM; exec sleep 60'];
    const stubborn = await world.startRunning(["run", "--name", "stubborn", "--", ...trap]);
    const stop = await agent.connect();
    await stop.send(
      formatRequest({ method: "POST", path: "/v1/guests/stubborn/stop", body: { killAfter: "1s" } }),
    );
    stop.close();
    for (let round = 0; round < 50; round++) {
      for (const address of [agent.address, tcp]) {
        using stream = await HttpClient.connect(address);
        await stream.send(get("/v1/events?last=1000"));
        if (round % 2 === 0) await stream.head();
        using document = await HttpClient.connect(address);
        await document.send(get("/openapi.json").repeat(20));
      }
    }
    assert.equal((await agent.get("/healthz")).status, 200);
    assert.equal((await stubborn.finished()).signal, "SIGKILL", "what was begun is done");
    await Promise.all([...slow, ...silent]);
  });
});

Deno.test("floods of connections and of requests are answered, or turned away", async () => {
  await besieged(async (agent, tcp) => {
    for (const address of [agent.address, tcp]) {
      using client = await HttpClient.connect(address);
      const count = 2000;
      const sending = client.send(get("/healthz").repeat(count));
      for (let at = 0; at < count; at++) assert.equal((await client.answer()).status, 200);
      await sending;
      // Nobody reads these: the agent stops reading, too.
      using deaf = await HttpClient.connect(address);
      void deaf.send(get("/openapi.json").repeat(20_000)).catch(() => {});
      assert.equal((await agent.get("/healthz")).status, 200);
    }
    const clients = await Promise.all(Array.from({ length: 1500 }, () => agent.connect()));
    const answers = await Promise.all(clients.map(async (client, at) => {
      try {
        await client.send(get("/healthz"));
        return await client.answer();
      } catch (error) {
        assert.ok(at >= 900, `client ${at}: ${error}`);
        return "closed";
      }
    }));
    const refused = answers.filter((answer) => answer !== "closed" && answer.status === 503) as Answer[];
    const served = answers.filter((answer) => answer !== "closed" && answer.status === 200);
    assert.ok(served.length >= 990 && served.length <= 1000, `${served.length} are served`);
    assert.ok(refused.length > 0, "the others are told");
    for (const answer of refused) assertRefusal(answer, 503, "one too many");
    for (const client of clients) client.close();
    await until("it serves again", async () => {
      try {
        return (await agent.get("/healthz")).status === 200;
      } catch {
        return false;
      }
    });
  });
});

Deno.test("the socket's mode keeps others out, and lets its group in", async () => {
  await using world = await World.create();
  const open = `${world.directory}/open`;
  await Deno.mkdir(open);
  for (const directory of [world.directory, open]) await Deno.chmod(directory, 0o755);
  const socket = `${open}/socket`;
  await using agent = await Agent.start(world, ["--socket", socket]);
  const { mode, uid, gid } = Deno.lstatSync(socket);
  assert.deepEqual([mode! & 0o777, uid], [0o660, 0]);
  const as = async (...words: string[]) => {
    const curl = ["curl", "--silent", "--show-error", "--unix-socket", socket, "http://localhost/v1/guests"];
    return await world.execute("setpriv", ["--reuid=65534", "--regid=65534", ...words, ...curl]);
  };
  const other = await as("--clear-groups");
  assert.deepEqual([other.code, other.stdout], [7, ""], other.stderr);
  const member = await as(`--groups=${gid}`);
  assert.deepEqual([member.code, member.stdout], [0, '{"guests":[]}\n'], member.stderr);
  assert.equal((await agent.get("/healthz")).status, 200);
});
