import assert from "node:assert/strict";
import type { HttpResponse } from "../lib/http/message.ts";
import { get, ServedSocket, signalled } from "./support/http_client.ts";
import { until } from "./support/until.ts";

for (const way of ["closes its connection", "closes it in two steps", "closes it with an answer unread"]) {
  Deno.test(`a handler learns when its client goes: it ${way}`, async () => {
    const started = signalled();
    const aborted = signalled();
    await using served = new ServedSocket({
      handler: ({ path, signal }) => {
        if (path === "/first") return { status: 200 };
        started.give();
        return new Promise<HttpResponse>((resolve) => {
          signal.addEventListener("abort", () => {
            aborted.give();
            resolve({ status: 200 });
          });
        });
      },
    });
    const client = await served.connect();
    await client.send(get("/first") + get("/slow"));
    if (way !== "closes it with an answer unread") await client.answer();
    await started.wait("the handler runs");
    if (way === "closes it in two steps") {
      await client.connection.closeWrite();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    client.close();
    await aborted.wait("the signal is aborted");
    await until("the connection is let go", () => served.server.connections === 0);
    assert.deepEqual(served.problems, []);
  });
}

Deno.test("the pieces of a stream are sent at once", async () => {
  const more = signalled();
  await using served = new ServedSocket({
    handler: () => ({
      status: 200,
      headers: { "content-type": "text/event-stream" },
      stream: (async function* () {
        yield "data: ä\n\n";
        yield "";
        await more.promise;
        yield "data: 2\n\n";
      })(),
    }),
  });
  const client = await served.connect();
  await client.send(get("/events"));
  assert.match(await client.until("\r\n\r\n"), /transfer-encoding: chunked/);
  assert.equal(await client.chunk(), "data: ä\n\n");
  more.give();
  assert.equal(await client.chunk(), "data: 2\n\n");
  assert.equal(await client.chunk(), "");
  await client.send("HEAD /events HTTP/1.1\r\nHost: a\r\n\r\n");
  assert.equal((await client.answer("HEAD")).headers.get("transfer-encoding"), "chunked");
  const old = await served.ask("GET /events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  assert.equal(old.body, "data: ä\n\ndata: 2\n\n");
  assert.equal(old.headers.has("transfer-encoding"), false);
  assert.equal(old.headers.get("connection"), "close");
});

for (const waits of ["for its signal", "for nothing"]) {
  Deno.test(`a stream ends when its client goes; it waits ${waits}`, async () => {
    const ended = signalled();
    await using served = new ServedSocket({
      handler: ({ signal }) => ({
        status: 200,
        stream: (async function* () {
          try {
            yield "one";
            while (waits === "for nothing") yield "x".repeat(1000);
            await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
            yield "nobody gets this";
          } finally {
            ended.give();
          }
        })(),
      }),
    });
    const client = await served.connect();
    await client.send(get("/events"));
    await client.until("one");
    client.close();
    await ended.wait("the stream is ended");
    await until("the connection is let go", () => served.server.connections === 0);
    assert.deepEqual(served.problems, []);
  });
}

Deno.test("return() of a stream is called whose next piece never comes", async () => {
  const returned = signalled();
  const stream: AsyncIterable<string> = {
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise(() => {}),
      return: () => {
        returned.give();
        return Promise.resolve({ done: true, value: undefined });
      },
    }),
  };
  await using served = new ServedSocket({ handler: () => ({ status: 200, stream }) });
  const client = await served.connect();
  await client.send(get("/"));
  await client.until("\r\n\r\n");
  client.close();
  await returned.wait("return() is called");
  await until("the connection is let go", () => served.server.connections === 0);
});

Deno.test("a stream that fails is cut off, and told of", async () => {
  await using served = new ServedSocket({
    handler: () => ({
      status: 200,
      stream: (async function* () {
        yield "one";
        throw new Error("the log\nis gone");
      })(),
    }),
  });
  const client = await served.connect();
  await client.send(get("/events"));
  await client.until("\r\n\r\n");
  assert.equal(await client.chunk(), "one");
  assert.equal((await client.rest()).length, 0, "no last chunk");
  assert.deepEqual(served.problems, ["GET /events: the log\\nis gone"]);
});

Deno.test("a stream is asked for no more than its client reads", async () => {
  let asked = 0;
  const ended = signalled();
  await using served = new ServedSocket({
    handler: () => ({
      status: 200,
      stream: (async function* () {
        try {
          while (true) {
            asked++;
            yield "x".repeat(10_000);
          }
        } finally {
          ended.give();
        }
      })(),
    }),
  });
  const client = await served.connect();
  await client.send(get("/"));
  let before = -1;
  await until("the server waits", async () => {
    const settled = asked === before;
    before = asked;
    await new Promise((resolve) => setTimeout(resolve, 50));
    return settled;
  });
  assert.ok(asked > 1 && asked < 200, `${asked} pieces of 10 kB for a socket's buffer of some 200 kB`);
  await client.bytes(10_000_000);
  assert.ok(asked >= 1000);
  client.close();
  await ended.wait("the stream is ended");
});
