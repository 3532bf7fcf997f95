import assert from "node:assert/strict";
import fc from "fast-check";
import { LockvisorError } from "../lib/errors.ts";
import { WrongShape } from "../lib/files/json_shape.ts";
import { failure, type Order, parseOrder, parseReport, type Report } from "../lib/migration/conversation.ts";
import { destinationStart } from "../lib/migration/destination_program.ts";
import { parseHostUri } from "../lib/config/host_uri.ts";
import { LineChannel } from "../lib/migration/line_channel.ts";

const ORDERS: Order[] = [
  {
    order: "receive",
    ticket: "{}",
    guest: { uuid: "u", name: "vm 1" },
    plugin: "sync-manager",
    command: ["qemu", ""],
    directory: "/",
    qmp: "/q",
    socketDirectory: "/tmp/x",
    map: [{ from: "/a", to: "/b" }],
  },
  { order: "sent", processors: "run" },
  { order: "sent", processors: "stay-stopped" },
  { order: "go" },
  { order: "complete" },
  { order: "cancel" },
  { order: "alive" },
];

const REPORTS: Report[] = [
  { report: "hello", protocol: 1, version: "0.1.0", hostName: "hv2" },
  { report: "ready", pid: 4711 },
  { report: "arrived" },
  { report: "running" },
  { report: "cancelled" },
  { report: "completed", outcome: "waiting", holders: "" },
  { report: "failed", guest: "never-ran", code: "data", message: "no" },
  { report: "warning", message: "careful" },
];

Deno.test("what is said in a migration is understood as it was meant", () => {
  for (const order of ORDERS) assert.deepEqual(parseOrder(JSON.stringify(order)), order);
  for (const report of REPORTS) assert.deepEqual(parseReport(JSON.stringify(report)), report);
});

Deno.test("whatever else is said in a migration is refused, and nothing but that", () => {
  const strange = fc.oneof(
    fc.string(),
    fc.json(),
    fc.constantFrom(...ORDERS, ...REPORTS).chain((said) =>
      fc.constantFrom(...Object.keys(said)).map((key) => JSON.stringify({ ...said, [key]: undefined }))
    ),
  );
  fc.assert(fc.property(strange, (line) => {
    assert.throws(() => parseOrder(line), WrongShape);
    assert.throws(() => parseReport(line), WrongShape);
  }));
});

Deno.test("a fault is reported with its code, one of our own as internal", () => {
  assert.deepEqual(failure("may-run", new LockvisorError("locked", "by vm2")), {
    report: "failed",
    guest: "may-run",
    code: "locked",
    message: "by vm2",
  });
  assert.deepEqual(failure("never-ran", new Error("oh")), {
    report: "failed",
    guest: "never-ran",
    code: "internal",
    message: "oh",
  });
});

Deno.test("lines come one by one however they are cut, until nothing comes any more", async () => {
  const there = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
  const channel = new LineChannel(there.readable, new WritableStream());
  const writer = there.writable.getWriter();
  const encode = (text: string) => new TextEncoder().encode(text);
  assert.equal((await channel.next(1)).kind, "late");
  const aborted = new AbortController();
  const waiting = channel.next(60_000, aborted.signal);
  aborted.abort();
  assert.equal((await waiting).kind, "aborted");
  void writer.write(encode('{"a"')).then(() => writer.write(encode(":1}\n2\n3"))).then(() => writer.close());
  assert.deepEqual(await channel.next(10_000), { kind: "line", line: '{"a":1}' });
  assert.deepEqual(await channel.next(10_000), { kind: "line", line: "2" });
  assert.deepEqual(await channel.next(10_000), { kind: "closed" });
});

const own = { path: "/opt/lockvisor", settings: ["--config=/c", "--host-id=h1"] };

Deno.test("a destination on this host has the settings of this one, unless it is told otherwise", () => {
  const start = destinationStart(parseHostUri("local:?host-id=h2"), ["migrate", "receive"], { own });
  assert.deepEqual(start, {
    kind: "program",
    program: "setsid",
    args: ["/opt/lockvisor", "--config=/c", "--host-id=h2", "migrate", "receive"],
  });
});

Deno.test("over ssh the settings are words of the remote command, and nothing of the user's is an option of ssh", () => {
  const uri = parseHostUri("ssh://root@hv2:2222?runtime-dir=/run/it's%20mine&program=/opt/lock%20visor");
  const { kind, args } = destinationStart(uri, ["migrate", "receive"], {
    own,
    forward: { here: "/tmp/a/s", there: "/tmp/b/s" },
  });
  assert.equal(kind, "connection");
  assert.deepEqual(args.slice(args.indexOf("-L")), [
    "-L",
    "/tmp/a/s:/tmp/b/s",
    "-l",
    "root",
    "-p",
    "2222",
    "--",
    "hv2",
    `'/opt/lock visor' '--runtime-dir=/run/it'\\''s mine' migrate receive`,
  ]);
  for (const option of ["BatchMode=yes", "ControlPath=none", "ExitOnForwardFailure=yes"]) {
    assert.equal(args[args.indexOf(option) - 1], "-o");
  }
});
