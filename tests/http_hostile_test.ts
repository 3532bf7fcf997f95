import assert from "node:assert/strict";
import { get, ServedSocket } from "./support/http_client.ts";
import { chunked, HOSTILE, post } from "./support/http_requests.ts";
import { until } from "./support/until.ts";

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
