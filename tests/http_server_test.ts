import assert from "node:assert/strict";
import { Deadline } from "../lib/http/deadline.ts";
import type { HttpRequest, HttpResponse } from "../lib/http/message.ts";
import { HttpServer } from "../lib/http/server.ts";
import { get, RawClient, ServedSocket, signalled } from "./support/http_client.ts";
import { until } from "./support/until.ts";

Deno.test("a request reaches the handler as it was sent", async () => {
  const seen: HttpRequest[] = [];
  await using served = new ServedSocket({
    handler: (request) => {
      seen.push(request);
      return { status: 201, headers: { "X-Made": "yes" }, body: "für dich" };
    },
  });
  const answer = await served.ask(
    "POST /v1/guests/a%2Fb?wait=1&wait=2 HTTP/1.1\r\nHost: localhost:80\r\nX-Two:  a b\t\r\nx-two: c\r\n" +
      "Cookie: a=1\r\nCookie: b=2\r\nContent-Length: 5\r\n\r\nh\u0000l\u00fco",
  );
  assert.equal(answer.status, 201);
  assert.equal(answer.body, "für dich");
  assert.equal(answer.headers.get("x-made"), "yes");
  assert.equal(answer.headers.get("content-length"), "9");
  assert.ok(Math.abs(Date.parse(answer.headers.get("date")!) - Date.now()) < 10_000);
  const [request] = seen;
  assert.equal(request?.method, "POST");
  assert.equal(request.target, "/v1/guests/a%2Fb?wait=1&wait=2");
  assert.equal(request.path, "/v1/guests/a%2Fb");
  assert.deepEqual(request.query.getAll("wait"), ["1", "2"]);
  assert.deepEqual([...request.body], [0x68, 0, 0x6c, 0xfc, 0x6f]);
  assert.deepEqual(Object.fromEntries(request.headers), {
    "host": "localhost:80",
    "x-two": "a b, c",
    "cookie": "a=1; b=2",
    "content-length": "5",
  });
  assert.equal(request.signal.aborted, false);
});

Deno.test("a target may name its host, or be * for OPTIONS", async () => {
  await using served = new ServedSocket({
    handler: ({ path, query, headers }) => ({
      status: 200,
      body: `${path} ${query} ${headers.get("host")}`,
    }),
  });
  assert.equal((await served.ask(get("http://other:1/x?y=z"))).body, "/x y=z other:1");
  assert.equal((await served.ask(get("http://other?y=z"))).body, "/ y=z other");
  assert.equal((await served.ask("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n")).body, "*  ");
  assert.equal((await served.ask(`\r\n${get("/")}`)).body, "/  localhost");
});

Deno.test("a connection serves one request after the other, also those sent ahead, in their order", async () => {
  let running = 0;
  await using served = new ServedSocket({
    handler: async ({ path }) => {
      assert.equal(++running, 1, "the one before is done");
      await new Promise((resolve) => setTimeout(resolve, path === "/0" ? 20 : 0));
      running--;
      return { status: 200, body: path };
    },
  });
  const client = await served.connect();
  for (const path of ["/a", "/b"]) {
    await client.send(get(path));
    assert.equal((await client.answer()).body, path);
  }
  const many = Array.from({ length: 300 }, (_, number) => `/${number}`);
  await client.send(many.map((path) => get(path)).join(""));
  for (const path of many) assert.equal((await client.answer()).body, path);
  assert.equal(served.server.connections, 1);
});

Deno.test("the connection is kept or closed as the client wants", async () => {
  await using served = new ServedSocket();
  const cases: { request: string; ends: boolean; says: string | undefined }[] = [
    { request: get("/"), ends: false, says: undefined },
    { request: get("/", "Connection: Keep-Alive, close"), ends: true, says: "close" },
    { request: "GET / HTTP/1.0\r\n\r\n", ends: true, says: "close" },
    { request: "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", ends: false, says: "keep-alive" },
  ];
  for (const { request, ends, says } of cases) {
    const client = await served.connect();
    await client.send(request);
    const answer = await client.answer();
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get("connection"), says, request);
    if (ends) {
      assert.equal((await client.rest()).length, 0);
    } else {
      await client.send(get("/again"));
      assert.equal((await client.answer()).body, "/again");
    }
    client.close();
  }
});

Deno.test("answers to HEAD, and those without content, have no body", async () => {
  await using served = new ServedSocket({
    handler: ({ path }) => ({ status: Number(path.slice(1)), body: "content" }),
  });
  const client = await served.connect();
  await client.send("HEAD /200 HTTP/1.1\r\nHost: a\r\n\r\n" + get("/204") + get("/304") + get("/200"));
  assert.equal((await client.answer("HEAD")).headers.get("content-length"), "7");
  for (const status of [204, 304]) {
    const answer = await client.answer();
    assert.equal(answer.status, status);
    assert.equal(answer.headers.has("content-length"), false);
  }
  assert.equal((await client.answer()).body, "content");
});

Deno.test("bodies come whole, chunked or not, up to the limit", async () => {
  await using served = new ServedSocket({
    handler: ({ body }) => ({ status: 200, body: body }),
    limits: { bodyBytes: 200_000 },
  });
  const body = "0123456789".repeat(20_000);
  const client = await served.connect();
  await client.send(`PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n${body}`);
  assert.equal((await client.answer()).body, body);
  const chunks = `1D4c0;name="a value";other\r\n${body.slice(0, 120_000)}\r\n013880\r\n${
    body.slice(120_000)
  }\r\n`;
  await client.send(
    `PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n${chunks}0\r\nX-Sum: 1\r\n\r\n`,
  );
  assert.equal((await client.answer()).body, body);
  await client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get("/"));
  assert.equal((await client.answer()).body, "");
  assert.equal((await client.answer()).body, "");
});

Deno.test("a large answer arrives whole at a client that takes its time", async () => {
  const body = "0123456789abcdef".repeat(256 * 1024);
  await using served = new ServedSocket({ handler: () => ({ status: 200, body }) });
  const client = await served.connect();
  await client.send(get("/"));
  await client.until("\r\n\r\n");
  assert.equal((await client.bytes(body.length)).length, body.length);
  await client.send(get("/"));
  assert.equal((await client.answer()).body.length, body.length);
});

Deno.test("a client that waits for it is told to send its body, or that it is not wanted", async () => {
  await using served = new ServedSocket({ handler: ({ body }) => ({ status: 200, body }) });
  const client = await served.connect();
  await client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n");
  assert.equal((await client.answer()).status, 100);
  await client.send("body");
  assert.equal((await client.answer()).body, "body");
  await client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n");
  assert.equal((await client.answer()).status, 413);
  assert.equal((await client.rest()).length, 0);
});

Deno.test("a client that has shut its writing side still gets its answers, streams too", async () => {
  let aborted = 0;
  await using served = new ServedSocket({
    handler: async ({ path, signal }) => {
      signal.addEventListener("abort", () => aborted++);
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (path !== "/stream") return { status: 200, body: path };
      return {
        status: 200,
        stream: (async function* () {
          yield "one";
          await new Promise((resolve) => setTimeout(resolve, 20));
          yield "two";
        })(),
      };
    },
  });
  const client = await served.connect();
  await client.send(get("/1") + get("/2") + get("/stream"));
  await client.connection.closeWrite();
  assert.equal((await client.answer()).body, "/1");
  assert.equal((await client.answer()).body, "/2");
  assert.equal((await client.answer()).body, "onetwo");
  assert.equal((await client.rest()).length, 0);
  assert.equal(aborted, 0);
});

Deno.test("what fails in a handler is told, and the client gets 500", async () => {
  const answers: Record<string, () => HttpResponse | Promise<HttpResponse>> = {
    "/throws": () => {
      throw new Error("no\nluck");
    },
    "/rejects": () => Promise.reject(new Error("no luck")),
    "/status": () => ({ status: 1 }),
    "/header": () => ({ status: 200, headers: { "x-a": "1\r\nx-b: 2" } }),
    "/name": () => ({ status: 200, headers: { "x a": "1" } }),
    "/own": () => ({ status: 200, headers: { "Content-Length": "1" } }),
  };
  await using served = new ServedSocket({ handler: ({ path }) => answers[path]!() });
  const client = await served.connect();
  for (const path in answers) {
    await client.send(get(path));
    const answer = await client.answer();
    assert.equal(answer.status, 500, path);
    assert.deepEqual(JSON.parse(answer.body), {
      error: { code: 500, message: "something failed inside the server" },
    });
  }
  assert.deepEqual(served.problems, [
    "GET /throws: no\\nluck",
    "GET /rejects: no luck",
    "GET /status: a response cannot have the status 1",
    "GET /header: the header x-a has other than printable ASCII",
    'GET /name: a response cannot have a header "x a"',
    "GET /own: the header Content-Length is the server's own",
  ]);
});

Deno.test("serving goes on when nobody can be told of a problem, or put it into words", async () => {
  const broken = () => {
    throw new Error("the log is full");
  };
  await using served = new ServedSocket({ handler: broken, fail: broken, problem: broken });
  const client = await served.connect();
  await client.send(get("/"));
  assert.equal((await client.answer()).status, 500);
  await client.send("nonsense\r\n");
  const answer = await client.answer();
  assert.equal(answer.status, 400);
  assert.match(answer.body, /^the request line is not /);
});

Deno.test("closing lets what is under way be answered, and ends what waits", async () => {
  const go = signalled();
  const started = signalled();
  const streamEnded = signalled();
  await using served = new ServedSocket({
    handler: async ({ path, signal }) => {
      if (path === "/stream") {
        return {
          status: 200,
          stream: (async function* () {
            yield "one";
            await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
            streamEnded.give();
          })(),
        };
      }
      if (path === "/slow") {
        started.give();
        await go.promise;
        assert.equal(signal.aborted, false);
      }
      return { status: 200, body: path };
    },
  });
  const [idle, slow, stream] = [await served.connect(), await served.connect(), await served.connect()];
  await idle.send(get("/"));
  await idle.answer();
  await stream.send(get("/stream"));
  await stream.until("one\r\n");
  await slow.send(get("/slow"));
  await started.wait("the handler runs");
  const closed = served.server.close(20_000);
  assert.equal((await idle.rest()).length, 0);
  assert.equal(await stream.chunk(), "");
  assert.equal((await stream.rest()).length, 0);
  await streamEnded.wait("the stream is ended");
  await assert.rejects(Deno.connect({ transport: "unix", path: served.path }));
  go.give();
  const answer = await slow.answer();
  assert.equal(answer.body, "/slow");
  assert.equal(answer.headers.get("connection"), "close");
  slow.close();
  await closed;
  assert.equal(served.server.connections, 0);
});

Deno.test("closing cuts off what is not done within the grace", async () => {
  const aborted = signalled();
  const started = signalled();
  await using served = new ServedSocket({
    handler: ({ signal }) => {
      signal.addEventListener("abort", () => aborted.give());
      started.give();
      return new Promise(() => {});
    },
  });
  const client = await served.connect();
  await client.send(get("/"));
  await started.wait("the handler runs");
  await served.server.close(50);
  await aborted.wait("the signal is aborted");
  assert.equal((await client.rest()).length, 0);
  assert.equal(served.server.connections, 0);
});

Deno.test("TCP is served as well", async () => {
  const problems: string[] = [];
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = new HttpServer(listener, {
    handler: ({ path, body }) => ({ status: 200, body: path + body.length }),
    fail: (_, message) => ({ type: "text/plain", body: message }),
    problem: (line) => problems.push(line),
  });
  const client = new RawClient(
    await Deno.connect({ hostname: "127.0.0.1", port: (listener.addr as Deno.NetAddr).port }),
  );
  await client.send(get("/a") + "PUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
  assert.equal((await client.answer()).body, "/a0");
  assert.equal((await client.answer()).body, "/b1");
  await client.send("nonsense with spaces\r\n");
  assert.equal((await client.answer()).status, 400);
  assert.equal((await client.rest()).length, 0);
  client.close();
  await server.close(1000);
  assert.deepEqual(problems, []);
});

Deno.test("a deadline passes when it was set to last, once, and not when it is off", async () => {
  const passed: number[] = [];
  const deadline = new Deadline(() => passed.push(performance.now()));
  const start = performance.now();
  deadline.set(20);
  deadline.set(150);
  await until("it passes", () => passed.length > 0);
  assert.ok(passed[0]! - start >= 149, `after ${passed[0]! - start} ms`);
  deadline.set(10_000);
  deadline.set(20);
  await until("an earlier one passes", () => passed.length > 1);
  deadline.set(20);
  deadline.off();
  const later = new Deadline(() => passed.push(0));
  later.set(60);
  await until("time goes by", () => passed.at(-1) === 0);
  assert.equal(passed.length, 3);
  deadline.set(20);
  deadline.end();
  deadline.set(20);
  later.end();
  later.set(20);
});
