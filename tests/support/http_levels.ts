import { openDescriptors } from "../../lib/process/descriptors.ts";
import { get, ServedSocket } from "./http_client.ts";
import { until } from "./until.ts";

// A program for one test, to be run with --v8-flags=--expose-gc: what a server has in use, in bytes and descriptors,
// after a few clients that break off, and after many.

interface Level {
  bytes: number;
  descriptors: number;
}

const { gc } = globalThis as unknown as { gc: () => void };

/** What is in use once nothing is held that is not needed. Buffers go in a second round, after what held them. */
async function level(): Promise<Level> {
  for (let round = 0; round < 3; round++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { heapUsed, external } = Deno.memoryUsage();
  const view = openDescriptors("self");
  return { bytes: heapUsed + external, descriptors: view.kind === "seen" ? view.targets.size : -1 };
}

const upload = `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n${"x".repeat(100_000)}`;
const chunks = `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${
  "1\r\nx\r\n".repeat(2_000)
}`;

/** What clients do, each before it goes without a word. */
const WAYS: readonly { sends: string; reads: number }[] = [
  { sends: "", reads: 0 },
  { sends: get("/").slice(0, 20), reads: 0 },
  { sends: get("/"), reads: 0 },
  { sends: get("/").repeat(20), reads: 1 },
  { sends: upload, reads: 1 },
  { sends: upload.slice(0, 70_000), reads: 0 },
  { sends: chunks, reads: 0 },
  { sends: get("/waits"), reads: 0 },
  { sends: get("/stream"), reads: 10_000 },
  { sends: get("/endless"), reads: 10_000 },
  { sends: "nonsense\r\n", reads: 0 },
  { sends: `GET /${"x".repeat(20_000)}`, reads: 1 },
];

await using served = new ServedSocket({
  limits: { connections: 50 },
  handler: async ({ path, body, signal }) => {
    const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    if (path === "/waits") await aborted;
    if (path !== "/stream" && path !== "/endless") {
      return { status: 200, body: `${body.length}`.repeat(50_000) };
    }
    return {
      status: 200,
      stream: (async function* () {
        do yield "x".repeat(20_000); while (path === "/endless");
        await aborted;
      })(),
    };
  },
});

async function clientsThatGo(count: number): Promise<void> {
  for (let number = 0; number < count; number++) {
    const { sends, reads } = WAYS[number % WAYS.length]!;
    const client = await served.connect();
    await client.send(sends);
    await client.bytes(reads);
    client.close();
  }
  // And more at a time than are served.
  const flood = await Promise.all(Array.from({ length: 100 }, () => served.connect()));
  for (const client of flood) client.close();
  served.forget();
  await until("all are let go", () => served.server.connections === 0);
}

await clientsThatGo(240);
const before = await level();
await clientsThatGo(2_400);
const after = await level();
console.log(JSON.stringify({ before, after, problems: served.problems }));
