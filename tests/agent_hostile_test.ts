import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import { type Address, type Answer, formatRequest, HttpClient, type Request } from "./support/http_client.ts";
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

function get(target: string, ...fields: string[]): string {
  return `GET ${target} HTTP/1.1\r\nhost: localhost\r\n${fields.map((field) => `${field}\r\n`).join("")}\r\n`;
}

function post(...fields: string[]): string {
  return get("/v1/check", ...fields).replace("GET", "POST");
}

const LONG = "a".repeat(9000);

/** What is no request, or asks for what is not there: over the socket and over TCP. */
const REQUESTS: [label: string, bytes: string, status: number][] = [
  ["no HTTP", "\x16\x03\x01\x02\x00\x01\x00", 400],
  ["words", "give me all locks\r\n\r\n", 400],
  ["no version", "GET /healthz\r\n\r\n", 400],
  ["version 2", "GET /healthz HTTP/2.0\r\nhost: a\r\n\r\n", 505],
  ["version 9.9", "GET /healthz HTTP/9.9\r\nhost: a\r\n\r\n", 505],
  ["two spaces", "GET  /healthz HTTP/1.1\r\nhost: a\r\n\r\n", 400],
  ["bare line feeds", "GET /healthz HTTP/1.1\nhost: a\n\n", 400],
  ["empty lines", "\r\n\r\n\r\n\r\n", 400],
  ["no host", "GET /healthz HTTP/1.1\r\n\r\n", 400],
  ["two hosts", get("/healthz", "host: localhost"), 400],
  ["a host that is none", "GET /healthz HTTP/1.1\r\nhost: a b\r\n\r\n", 400],
  ["no colon", get("/healthz", "nonsense"), 400],
  ["a blank in a name", get("/healthz", "x y: z"), 400],
  ["a blank before the colon", post("transfer-encoding : chunked"), 400],
  ["a folded field", get("/healthz", "x: y", " z"), 400],
  ["NUL in a field", get("/healthz", "x: a\0b"), 400],
  ["a carriage return in a field", get("/healthz", "x: a\rb"), 400],
  ["NUL in the target", get("/v1/guests/a\0b"), 400],
  ["an escape sequence in the target", get("/v1/guests/\x1b[31m"), 400],
  ["raw UTF-8 in the target", get("/v1/guests/ü"), 400],
  ["a backslash in the target", get("/v1\\guests"), 400],
  ["a percent sign alone", get("/v1/guests/100%"), 400],
  ["no hexadecimal digits", get("/v1/guests/%zz"), 400],
  ["a target that is no path", get("v1/guests"), 400],
  ["bytes that are no UTF-8", get("/v1/guests/%ff%fe"), 404],
  ["overlong UTF-8", get("/v1/guests/%c0%ae%c0%ae"), 404],
  ["half a surrogate", get("/v1/guests/%ed%a0%80"), 404],
  ["NUL, encoded", get("/v1/guests/%00"), 404],
  ["a line break, encoded", get("/v1/guests/a%0d%0ab"), 404],
  ["an escape sequence, encoded", get("/v1/guests/%1b%5b31m"), 404],
  ["a direction override", get("/v1/guests/%e2%80%ae"), 404],
  ["up", get("/v1/guests/../x"), 404],
  ["up and away", get("/../../../../etc/passwd"), 404],
  ["up, encoded", get("/v1/guests/%2e%2e"), 404],
  ["up, encoded twice", get("/v1/guests/%252e%252e"), 404],
  ["a path in a name", get("/v1/guests/%2e%2e%2f%2e%2e%2fetc%2fpasswd"), 404],
  ["a slash, encoded", get("/v1/guests/a%2fb"), 404],
  ["two slashes", get("//v1/guests"), 404],
  ["another server's path", get("http://localhost/etc/passwd"), 404],
  ["a prototype's property", get("/constructor"), 404],
  ["a guest called __proto__", get("/v1/guests/__proto__"), 404],
  ["a guest of 8000 letters", get(`/v1/guests/${LONG.slice(0, 8000)}`), 404],
  ["a query for a prototype", get("/v1/guests?__proto__=1"), 422],
  ["a query with NUL", get("/v1/guests?%00=%00"), 422],
  ["a disk with NUL", get("/v1/locks?disk=/a%00b"), 422],
  ["a disk with a line break", get("/v1/locks?disk=/a%0ab"), 422],
  ["a relative disk", get("/v1/locks?disk=../../etc/passwd"), 422],
  ["a disk that is a device", get("/v1/locks?disk=/dev/null"), 422],
  ["a disk that is a directory", get("/v1/locks?disk=/proc/self/fd"), 422],
  ["the star", "OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n", 404],
  ["a method that tunnels", "CONNECT localhost:1 HTTP/1.1\r\nhost: localhost\r\n\r\n", 501],
  ["a long method", `${"A".repeat(40)} / HTTP/1.1\r\nhost: localhost\r\n\r\n`, 501],
  ["a method that is none", "G(ET / HTTP/1.1\r\nhost: localhost\r\n\r\n", 400],
  ["a long target", get(`/${LONG}`), 414],
  ["a line without end", `GET /${"a".repeat(40_000)}`, 414],
  ["many fields", get("/healthz", ...Array.from({ length: 101 }, (_, at) => `x${at}: y`)), 431],
  ["a large field", get("/healthz", `x: ${"y".repeat(20_000)}`), 431],
  ["a head without end", `GET / HTTP/1.1\r\n${"x: y\r\n".repeat(50_000)}`, 431],
  ["an expectation", get("/healthz", "expect: miracles"), 417],
  ["a negative length", post("content-length: -1"), 400],
  ["a length in words", post("content-length: ten"), 400],
  ["two lengths in one", post("content-length: 5, 5"), 400],
  ["two lengths", post("content-length: 5", "content-length: 6"), 400],
  ["a length and chunks", post("content-length: 5", "transfer-encoding: chunked"), 400],
  ["chunks twice", post("transfer-encoding: chunked, chunked"), 400],
  ["another coding", post("transfer-encoding: gzip, chunked"), 501],
  ["chunks in HTTP/1.0", post("transfer-encoding: chunked").replace("1.1", "1.0"), 400],
  ["no chunk", post("transfer-encoding: chunked") + "nonsense\r\n", 400],
  ["a chunk that is longer than it says", post("transfer-encoding: chunked") + "1\r\nabc\r\n", 400],
  ["a chunk of 4 GB", post("transfer-encoding: chunked") + "ffffffff\r\n", 413],
  ["a body of 100 GB", post("content-length: 99999999999"), 413],
  ["a body of more than there are numbers", post(`content-length: ${"9".repeat(400)}`), 413],
];

const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
const disks = (entry: string) => `{"disks":[${entry}]}`;

/** Bodies that are no wish for locks: over the socket, since nothing is changed over TCP. */
const BODIES: [label: string, body: string | Uint8Array, status: number][] = [
  ["truncated", '{"disks":[{"path":"/a"', 400],
  ["two values", "{} {}", 400],
  ["blanks", "   ", 400],
  ["NUL", "\0", 400],
  ["a trailing comma", '{"disks":[],}', 400],
  ["no number", '{"disks":NaN}', 400],
  ["a comment", "{/* */}", 400],
  ["no UTF-8", new Uint8Array([0x22, 0xff, 0xfe, 0x22]), 400],
  ["UTF-16", new Uint8Array([0xff, 0xfe, 0x7b, 0, 0x7d, 0]), 400],
  ["a raw line break in a text", '{"disks":[{"path":"/a\nb"}]}', 400],
  ["brackets that open only", "[".repeat(500_000), 400],
  ["deep", nested(250_000), 422],
  ["deep inside", disks(nested(250_000)), 422],
  ["deep objects", '{"a":'.repeat(100_000) + "1" + "}".repeat(100_000), 422],
  ["a list", "[]", 422],
  ["a text", '"/a"', 422],
  ["null", "null", 422],
  ["a number", "1e999", 422],
  ["disks that are no list", '{"disks":{"length":1,"0":{"path":"/a"}}}', 422],
  ["a disk that is a text", disks('"/a"'), 422],
  ["a disk that is null", disks("null"), 422],
  ["a path that is a list", disks('{"path":["/a"]}'), 422],
  ["a path that is empty", disks('{"path":""}'), 422],
  ["a long path", disks(`{"path":"/${LONG}"}`), 422],
  ["a path with NUL", disks('{"path":"/a\\u0000b"}'), 422],
  ["a path with an escape sequence", disks('{"path":"/\\u001b[31m"}'), 422],
  ["half a surrogate", disks('{"path":"/\\ud800"}'), 422],
  ["up", disks('{"path":"../../etc/passwd"}'), 422],
  ["an unknown field", disks('{"path":"/a","force":true}'), 422],
  ["an unknown field with NUL", '{"\\u0000":1}', 422],
  ["a prototype", '{"__proto__":{"disks":[{"path":"/a"}]}}', 422],
  ["a prototype beside", '{"__proto__":{},"disks":[{"path":"/a"}]}', 422],
  ["a disk's prototype", disks('{"path":"/a","__proto__":{"access":"shared"}}'), 422],
  ["a constructor", '{"constructor":{"prototype":{}}}', 422],
  ["a name twice: the last counts", '{"disks":[{"path":"/dev/zero"}],"disks":[]}', 422],
  ["a thousand disks that are not there", disks(Array(1000).fill('{"path":"/absent"}').join()), 422],
  ["ten thousand disks", disks(Array(10_000).fill('{"path":"/absent"}').join()), 422],
  ["many names", `{${Array.from({ length: 50_000 }, (_, at) => `"n${at}":1`).join()}}`, 422],
  ["a megabyte and a byte", " ".repeat(1024 * 1024 + 1), 413],
  ["a megabyte of blanks", " ".repeat(1024 * 1024 - 2) + "{}", 422],
];

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
  await using agent = await Agent.start(world, ["--listen", "127.0.0.1:0"]);
  const tcp = await agent.tcp();
  for (let round = 0; round < 50; round++) await agent.get("/v1/guests"); // what is made once is made
  const [opened, used] = [descriptors(agent.pid), memory(agent.pid)];
  await attack(agent, tcp, world);
  await until("its descriptors are what they were", () => descriptors(agent.pid) <= opened, 15_000);
  assert.ok(memory(agent.pid) < used + 100, `from ${used} to ${memory(agent.pid)} MiB`);
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
