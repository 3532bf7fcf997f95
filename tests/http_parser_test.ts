import assert from "node:assert/strict";
import fc from "fast-check";
import { DEFAULT_LIMITS, type HttpLimits } from "../lib/http/message.ts";
import { RequestParser } from "../lib/http/request_parser.ts";
import { get, latin1 } from "./support/http_client.ts";
import { chunked, HOSTILE, post } from "./support/http_requests.ts";

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
