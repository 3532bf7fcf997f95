import assert from "node:assert/strict";
import fc from "fast-check";
import { DEFAULT_LIMITS, type HttpLimits } from "../lib/http/message.ts";
import { RequestParser } from "../lib/http/request_parser.ts";
import { openDescriptors } from "../lib/process/descriptors.ts";
import { get, latin1, type RawClient, ServedSocket, signalled } from "./support/http_client.ts";
import { until } from "./support/until.ts";

/** A request that is all right, but for the given header lines and body. */
function post(headers: string[], body = ""): string {
  return ["POST / HTTP/1.1", "Host: a", ...headers, "", body].join("\r\n");
}

function chunked(body: string, ...headers: string[]): string {
  return post(["Transfer-Encoding: chunked", ...headers], body);
}

const LONG = "x".repeat(20_000);

/** What breaks the protocol or a limit, and the status for it. Each has to be refused without anything after it. */
const HOSTILE: readonly [name: string, request: string, status: number][] = [
  ["no version, HTTP/0.9", "GET /\r\n", 400],
  ["a word in place of a request", "hello\r\n\r\n", 400],
  ["two spaces after the method", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["two spaces before the version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["a space at the end of the request line", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400],
  ["a space before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["a tabulator for a space", "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["a method with a bracket", "GE[T / HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["a method longer than all", `${"M".repeat(33)} / HTTP/1.1\r\nHost: a\r\n\r\n`, 501],
  ["CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501],
  ["a target that is no path", get("guests"), 400],
  ["* for GET", get("*"), 400],
  ["a target of another scheme", get("ftp://a/"), 400],
  ["a target with a user", get("http://user@a/"), 400],
  ["a target with NUL", get("/a\0b"), 400],
  ["a target with a byte above 127", get("/\xe4"), 400],
  ["a target with a fragment", get("/a#b"), 400],
  ["a target with a broken percent-encoding", get("/%g0"), 400],
  ["a target that ends in a percent sign", get("/%"), 400],
  ["a target with a backslash", get("/..\\x"), 400],
  ["a target too long", get(`/${"x".repeat(DEFAULT_LIMITS.targetBytes)}`), 414],
  ["a request line without end", `GET /${LONG}`, 414],
  ["a lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n", 400],
  ["a version with two digits", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400],
  ["HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505],
  ["HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505],
  ["HTTP/0.9 by its name", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505],
  ["TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400],
  ["two empty lines first", `\r\n\r\n${get("/")}`, 400],
  ["CR without LF first", `\rX${get("/")}\n`, 400],
  ["lines that end with LF", "GET / HTTP/1.1\nHost: a\n\n", 400],
  ["one line that ends with LF", "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400],
  ["CR inside of a line", post(["X: a\rb"]), 400],
  ["CR twice", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400],
  ["a header without a colon", post(["nonsense"]), 400],
  ["a header without a name", post([": 1"]), 400],
  ["a space before the colon", post(["X : 1"]), 400],
  ["a name with NUL", post(["X\0: 1"]), 400],
  ["a name with a byte above 127", post(["X\xe4: 1"]), 400],
  ["a name with a parenthesis", post(["X(: 1"]), 400],
  ["a value with NUL", post(["X: a\0b"]), 400],
  ["a value with DEL", post(["X: a\x7fb"]), 400],
  ["a value that goes on in a second line", post(["X: 1", " 2"]), 400],
  ["a second line after a tabulator", post(["X: 1", "\t2"]), 400],
  ["a second line as the first header", "GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n", 400],
  ["no host", "GET / HTTP/1.1\r\n\r\n", 400],
  ["two hosts", post(["Host: b"]), 400],
  ["the same host twice", post(["Host: a"]), 400],
  ["two hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400],
  ["a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400],
  ["a host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400],
  ["two hosts in one header", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400],
  ["too many headers", post(Array.from({ length: 100 }, (_, number) => `X-${number}: 1`)), 431],
  ["a head too large", post([`X: ${LONG}`]), 431],
  ["a head without end", `GET / HTTP/1.1\r\nX: ${LONG}`, 431],
  ["two lengths", post(["Content-Length: 3", "Content-Length: 4"], "abcd"), 400],
  ["the same length twice", post(["Content-Length: 3", "Content-Length: 3"], "abc"), 400],
  ["two lengths in one header", post(["Content-Length: 3, 3"], "abc"), 400],
  ["a negative length", post(["Content-Length: -1"]), 400],
  ["a length with a sign", post(["Content-Length: +3"], "abc"), 400],
  ["a hexadecimal length", post(["Content-Length: 0x3"], "abc"), 400],
  ["a length with an exponent", post(["Content-Length: 3e0"], "abc"), 400],
  ["a length with a fraction", post(["Content-Length: 3.0"], "abc"), 400],
  ["a length of other digits", post(["Content-Length: \xb3"], "abc"), 400],
  ["an empty length", post(["Content-Length:"]), 400],
  ["a body too large", post([`Content-Length: ${DEFAULT_LIMITS.bodyBytes + 1}`]), 413],
  ["a body beyond all numbers", post([`Content-Length: ${"9".repeat(400)}`]), 413],
  ["length and chunks", chunked("0\r\n\r\n", "Content-Length: 5"), 400],
  ["chunks in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400],
  ["chunked twice", chunked("0\r\n\r\n", "Transfer-Encoding: chunked"), 400],
  ["chunked, and an empty one", post(["Transfer-Encoding: chunked", "Transfer-Encoding:"]), 400],
  ["chunked twice in one header", post(["Transfer-Encoding: chunked, chunked"]), 400],
  ["no transfer coding", post(["Transfer-Encoding: "]), 400],
  ["an unknown transfer coding", post(["Transfer-Encoding: gzip"]), 501],
  ["an unknown one before the chunks", post(["Transfer-Encoding: gzip, chunked"]), 501],
  ["a transfer coding that looks like chunked", post(["Transfer-Encoding: xchunked"]), 501],
  ["identity", post(["Transfer-Encoding: identity"]), 501],
  ["a chunk's size that is no number", chunked("xyz\r\n"), 400],
  ["an empty size", chunked("\r\n"), 400],
  ["a negative size", chunked("-1\r\n"), 400],
  ["a size with 0x", chunked("0x3\r\nabc\r\n0\r\n\r\n"), 400],
  ["a size with a space", chunked("3 \r\nabc\r\n0\r\n\r\n"), 400],
  ["a size with more behind it", chunked("3abcq\r\nabc\r\n0\r\n\r\n"), 400],
  ["a size of nine digits", chunked("000000003\r\nabc\r\n0\r\n\r\n"), 400],
  ["a size's line that ends with LF", chunked("3\nabc\r\n0\r\n\r\n"), 400],
  ["a size's line without end", chunked(`3;${LONG}`), 400],
  ["a NUL in an extension", chunked("3;a\0\r\nabc\r\n0\r\n\r\n"), 400],
  ["too many extensions", chunked(`1;${"x".repeat(240)}\r\na\r\n`.repeat(100)), 400],
  ["a chunk longer than its size", chunked("3\r\nabcd\r\n0\r\n\r\n"), 400],
  ["a chunk that ends with LF", chunked("3\r\nabc\n0\r\n\r\n"), 400],
  ["a chunk too large", chunked("FFFFFFFF\r\n"), 413],
  ["chunks too large together", chunked(`80000\r\n${"x".repeat(0x80000)}\r\n`.repeat(2) + "1\r\n"), 413],
  ["a trailer that is no field", chunked("0\r\nnonsense\r\n\r\n"), 400],
  ["a trailer in two lines", chunked("0\r\nX: 1\r\n 2\r\n\r\n"), 400],
  ["trailers too many", chunked(`0\r\n${"X: 1\r\n".repeat(101)}`), 431],
  ["a trailer without end", chunked(`0\r\nX: ${LONG}`), 431],
  ["something else expected", post(["Expect: 200-ok"]), 417],
];

Deno.test("what breaks the protocol is answered with its status, and the connection closed", async (test) => {
  const handled: string[] = [];
  await using served = new ServedSocket({
    handler: ({ target }) => {
      handled.push(target);
      return { status: 200 };
    },
  });
  for (const [name, request, status] of HOSTILE) {
    await test.step(`${name}: ${status}`, async () => {
      for (const after of ["", get("/smuggled")]) {
        const client = await served.connect();
        await client.send(`${get("/before")}${request}${after}`);
        assert.equal((await client.answer()).status, 200);
        const answer = await client.answer();
        assert.equal(answer.status, status, answer.body);
        assert.equal(JSON.parse(answer.body).error.code, status);
        assert.equal(answer.headers.get("connection"), "close");
        assert.equal((await client.rest()).length, 0, "nothing comes after it");
        client.close();
      }
    });
  }
  assert.deepEqual([...new Set(handled)], ["/before"]);
  assert.deepEqual(served.problems, []);
  await until("all are let go", () => served.server.connections === 0);
});

Deno.test("requests that end in the middle are answered with 400", async () => {
  await using served = new ServedSocket();
  for (
    const cut of [
      "GET / HT",
      "GET / HTTP/1.1\r\nHost: a\r\n",
      post(["Content-Length: 5"], "abc"),
      chunked("3\r\nab"),
    ]
  ) {
    const client = await served.connect();
    await client.send(cut);
    await client.connection.closeWrite();
    assert.equal((await client.answer()).status, 400);
    assert.equal((await client.rest()).length, 0);
  }
  const silent = await served.connect();
  await silent.connection.closeWrite();
  assert.equal((await silent.rest()).length, 0);
});

Deno.test("a client that sends a large body all the same reads why it is not wanted", async () => {
  await using served = new ServedSocket();
  const client = await served.connect();
  await client.send(post(["Content-Length: 8000000"]));
  for (let sent = 0; sent < 8_000_000; sent += 100_000) await client.send(new Uint8Array(100_000));
  assert.equal((await client.answer()).status, 413);
  assert.equal((await client.rest()).length, 0);
});

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

Deno.test("ahead of what is wanted there is no more room than there was", () => {
  const parser = new RequestParser(DEFAULT_LIMITS);
  const room = parser.room("ahead").length;
  feed(parser, get("/").repeat(room).slice(0, room));
  assert.equal(parser.room("ahead").length, 0);
  assert.equal(parser.next().kind, "request");
  assert.equal(parser.room("ahead").length, get("/").length);
  assert.equal(parser.room("wanted").length, get("/").length);
});

Deno.test("a body in the smallest chunks takes up no more than its bytes", () => {
  const parser = new RequestParser(DEFAULT_LIMITS);
  feed(parser, chunked(""));
  const chunks = Uint8Array.from("1\r\nx\r\n".repeat(500), (char) => char.charCodeAt(0));
  const before = Deno.memoryUsage();
  for (let sent = 0; sent < 1_000_000; sent += 500) {
    feedBytes(parser, chunks);
    assert.equal(parser.next().kind, "more");
  }
  feed(parser, "0\r\n\r\n");
  const step = parser.next();
  assert.ok(step.kind === "request" && step.body.length === 1_000_000);
  const after = Deno.memoryUsage();
  assert.ok(after.external - before.external < 16_000_000, `${after.external - before.external} bytes`);
  assert.ok(after.heapUsed - before.heapUsed < 64_000_000, `${after.heapUsed - before.heapUsed} bytes`);
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

/** Gives the parser bytes, in pieces that fit. */
function feedBytes(parser: RequestParser, bytes: Uint8Array): void {
  let rest = bytes;
  while (rest.length > 0) {
    const room = parser.room("wanted");
    const part = rest.subarray(0, room.length);
    room.set(part);
    parser.filled(part.length);
    rest = rest.subarray(part.length);
  }
}

function feed(parser: RequestParser, text: string): void {
  feedBytes(parser, Uint8Array.from(text, (char) => char.charCodeAt(0)));
}

/** All that a parser makes of bytes that come in the given pieces, as text to compare. */
function parsed(pieces: readonly string[], limits: HttpLimits): string[] {
  const parser = new RequestParser(limits);
  const found: string[] = [];
  for (const piece of pieces) {
    feed(parser, piece);
    while (true) {
      const step = parser.next();
      if (step.kind === "more") break;
      if (step.kind === "refused") return [...found, `${step.status} ${step.message}`];
      if (step.kind === "proceed") found.push("proceed");
      if (step.kind !== "request") continue;
      const { line, headers, persists } = step.head;
      found.push(JSON.stringify([line, [...headers], persists, latin1(step.body)]));
    }
  }
  return [...found, parser.position];
}

/** A text cut at the given places. */
function cut(text: string, places: readonly number[]): string[] {
  const ends = [...new Set(places.map((place) => place % (text.length + 1)))].sort((one, other) =>
    one - other
  );
  return [...ends, text.length].map((end, number) => text.slice(ends[number - 1] ?? 0, end));
}

const goodRequest = fc.oneof(
  fc.webPath().map((path) => get(path === "" ? "/" : path)),
  fc.string({ maxLength: 300 }).map((text) => {
    const body = new TextEncoder().encode(text);
    return post([`Content-Length: ${body.length}`], latin1(body));
  }),
  fc.array(fc.string({ minLength: 1, maxLength: 20, unit: "binary-ascii" }), { maxLength: 5 }).map((chunks) =>
    chunked(
      chunks.map((chunk) => `${chunk.length.toString(16)};q\r\n${chunk}\r\n`).join("") + "0\r\nT: 1\r\n\r\n",
    )
  ),
  fc.constant(post(["Expect: 100-continue", "Content-Length: 2"], "ab")),
);

/** Good requests, bad ones, and good ones with a byte changed. */
const traffic = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: goodRequest },
    { weight: 1, arbitrary: fc.constantFrom(...HOSTILE.map(([, request]) => request.slice(0, 2_000))) },
    {
      weight: 2,
      arbitrary: fc.tuple(goodRequest, fc.nat(), fc.integer({ min: 0, max: 255 })).map(
        ([request, place, byte]) => {
          const at = place % request.length;
          return request.slice(0, at) + String.fromCharCode(byte) + request.slice(at + 1);
        },
      ),
    },
  ),
  { minLength: 1, maxLength: 5 },
).map((requests) => requests.join(""));

Deno.test("what a parser finds does not depend on the pieces in which it comes", () => {
  const limits = { ...DEFAULT_LIMITS, headBytes: 600, targetBytes: 200, bodyBytes: 250, fields: 8 };
  fc.assert(
    fc.property(traffic, fc.array(fc.nat(), { maxLength: 20 }), (text, places) => {
      const whole = parsed([text], limits);
      assert.deepEqual(parsed(cut(text, places), limits), whole);
      assert.deepEqual(parsed([...text], limits), whole);
    }),
    { numRuns: 1000 },
  );
});

Deno.test("a request comes out as it went in, however it is cut", () => {
  const token = fc.stringMatching(/^[!#$%&'*+\-.^_`|~0-9a-z]{1,20}$/);
  const value = fc.stringMatching(/^[!-~\x80-\xff]([\t -~\x80-\xff]{0,20}[!-~\x80-\xff])?$/);
  const names = new Set(["host", "content-length", "transfer-encoding", "connection", "expect", "cookie"]);
  const fields = fc.uniqueArray(fc.tuple(token.filter((name) => !names.has(name)), value), {
    selector: ([name]) => name,
    maxLength: 20,
  });
  const body = fc.uint8Array({ maxLength: 200 });
  fc.assert(
    fc.property(fields, body, fc.array(fc.nat(), { maxLength: 20 }), (headers, sent, places) => {
      const text = post(
        [...headers.map(([name, content]) => `${name}: ${content}`), `Content-Length: ${sent.length}`],
        latin1(sent),
      );
      const parser = new RequestParser(DEFAULT_LIMITS);
      let step = parser.next();
      for (const piece of cut(text, places).filter((piece) => piece !== "")) {
        assert.equal(step.kind, "more");
        feed(parser, piece);
        step = parser.next();
      }
      assert.ok(step.kind === "request", JSON.stringify(step));
      assert.deepEqual(step.body, sent);
      assert.deepEqual([...step.head.headers], [["host", "a"], ...headers, [
        "content-length",
        `${sent.length}`,
      ]]);
    }),
  );
});
