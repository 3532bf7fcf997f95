import assert from "node:assert/strict";
import { LockvisorError } from "../lib/errors.ts";
import { peerPid } from "../lib/libc/unix_socket.ts";
import { QmpClient, QmpCommandError, type QmpEvent } from "../lib/qmp/client.ts";
import { LineSplitter, LONGEST_LINE } from "../lib/qmp/lines.ts";
import { parseQmpMessage } from "../lib/qmp/message.ts";
import { openDescriptors } from "../lib/process/descriptors.ts";
import { canLock, flockedFiles } from "./support/kernel.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";

// The C library stays open once it is used; opened here, it is nothing that a test has left behind.
peerPid(0);

/** A directory with a QEMU in it whose monitor answers. */
class Qemu implements AsyncDisposable {
  readonly directory: string;
  readonly socket: string;
  readonly child: Deno.ChildProcess;

  private constructor(directory: string, child: Deno.ChildProcess) {
    this.directory = directory;
    this.socket = `${directory}/qmp`;
    this.child = child;
  }

  static async start(): Promise<Qemu> {
    const directory = await Deno.realPath(await Deno.makeTempDir({ prefix: "lockvisor-test-" }));
    const disk = `${directory}/d.qcow2`;
    const made = await new Deno.Command("qemu-img", {
      args: ["create", "-q", "-f", "qcow2", disk, "1M"],
    }).output();
    assert.ok(made.success);
    const [program, ...args] = qemuCommand(disk, {
      extra: ["-qmp", `unix:${directory}/qmp,server=on,wait=off`],
    });
    const child = new Deno.Command(program!, { args, stdin: "null" }).spawn();
    // The socket is there an instant before QEMU listens on it; one connection tells, and is closed at once.
    await until("the monitor listens", async () => {
      try {
        (await Deno.connect({ transport: "unix", path: `${directory}/qmp` })).close();
        return true;
      } catch {
        return false;
      }
    });
    return new Qemu(directory, child);
  }

  async kill(): Promise<void> {
    try {
      this.child.kill("SIGKILL");
    } catch { /* it has ended */ }
    await this.child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await Deno.remove(this.directory, { recursive: true });
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Our descriptors that are open on a path. */
function ownNumbers(path: string): number[] {
  const view = openDescriptors("self");
  assert.equal(view.kind, "seen");
  return view.kind === "seen" ? [...view.targets].filter(([, to]) => to === path).map(([fd]) => fd) : [];
}

/** Our sockets, to see that none is left. */
function ownSockets(): number {
  const view = openDescriptors("self");
  return view.kind === "seen"
    ? [...view.targets.values()].filter((to) => to.startsWith("socket:")).length
    : 0;
}

/** A monitor that does what it is told with each connection. */
class FakeMonitor implements AsyncDisposable {
  readonly socket: string;
  readonly #directory: string;
  readonly #listener: Deno.UnixListener;
  readonly #connections: Deno.UnixConn[] = [];
  readonly #serving: Promise<void>;

  constructor(serve: (connection: Deno.UnixConn) => Promise<void>) {
    this.#directory = Deno.makeTempDirSync({ prefix: "lockvisor-test-" });
    this.socket = `${this.#directory}/qmp`;
    this.#listener = Deno.listen({ transport: "unix", path: this.socket });
    this.#serving = this.#serve(serve);
  }

  async #serve(serve: (connection: Deno.UnixConn) => Promise<void>): Promise<void> {
    const served: Promise<void>[] = [];
    for await (const connection of this.#listener) {
      this.#connections.push(connection);
      served.push(serve(connection).catch(() => {}));
    }
    await Promise.all(served);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#connections) {
      try {
        connection.close();
      } catch { /* the test has closed it */ }
    }
    await this.#serving;
    await Deno.remove(this.#directory, { recursive: true });
  }
}

async function say(connection: Deno.UnixConn, text: string): Promise<void> {
  const bytes = new TextEncoder().encode(text);
  for (let written = 0; written < bytes.length;) written += await connection.write(bytes.subarray(written));
}

const GREETING = '{"QMP": {"version": {}, "capabilities": []}}\n';
const ACCEPTED = '{"return": {}, "id": 1}\n';

async function unavailable(action: Promise<unknown>, says: RegExp): Promise<LockvisorError> {
  let caught: unknown;
  await action.catch((error) => caught = error);
  assert.ok(caught instanceof LockvisorError, String(caught));
  assert.equal(caught.code, "unavailable");
  assert.match(caught.message, says);
  return caught;
}

Deno.test("each line of a monitor is understood, or called garbage", () => {
  const table: [string, ReturnType<typeof parseQmpMessage>["kind"]][] = [
    [GREETING, "greeting"],
    [ACCEPTED, "return"],
    ['{"return": 0}', "return"],
    ['{"error": {"class": "GenericError", "desc": "no"}, "id": 2}', "error"],
    ['{"error": {}}', "error"],
    ['{"event": "STOP", "timestamp": {}}', "event"],
    ["", "garbage"],
    ["null", "garbage"],
    ["[]", "garbage"],
    ["{}", "garbage"],
    ['{"error": 5}', "garbage"],
    ['{"event": 5}', "garbage"],
    ['{"return": ', "garbage"],
  ];
  for (const [line, kind] of table) assert.equal(parseQmpMessage(line).kind, kind, line);
});

Deno.test("bytes are cut into lines wherever the chunks end", () => {
  const bytes = new TextEncoder().encode('{"ä": 1}\r\n\n{"b": 2}\n{"c"');
  for (let size = 1; size <= bytes.length; size++) {
    const splitter = new LineSplitter();
    const lines: string[] = [];
    for (let at = 0; at < bytes.length; at += size) {
      const outcome = splitter.push(bytes.subarray(at, at + size));
      assert.equal(outcome.kind, "lines");
      if (outcome.kind === "lines") lines.push(...outcome.lines);
    }
    assert.deepEqual(lines, ['{"ä": 1}', '{"b": 2}']);
  }
});

Deno.test("a line may be as long as allowed, not longer, complete or not", () => {
  const filled = (length: number, end: string) => new TextEncoder().encode("x".repeat(length) + end);
  assert.equal(new LineSplitter().push(filled(LONGEST_LINE, "\n")).kind, "lines");
  assert.equal(new LineSplitter().push(filled(LONGEST_LINE + 1, "\n")).kind, "too-long");
  assert.equal(new LineSplitter().push(filled(LONGEST_LINE + 1, "")).kind, "too-long");
  assert.equal(new LineSplitter().push(new Uint8Array([0xff, 10])).kind, "not-text");
});

Deno.test("QEMU answers commands, refuses wrong ones with its class and words, and reports events", async () => {
  await using qemu = await Qemu.start();
  const events: QmpEvent[] = [];
  await using client = await QmpClient.connect(qemu.socket, {
    expectedPid: qemu.child.pid,
    onEvent: (event) => events.push(event),
  });
  const all = await Promise.all([1, 2, 3].map(() => client.execute("query-status")));
  for (const status of all) assert.equal((status as { running: boolean }).running, true);
  await client.execute("stop");
  assert.deepEqual(events.map(({ name }) => name), ["STOP"]);
  const wrong = await client.execute("no-such-command").catch((error) => error);
  assert.ok(wrong instanceof QmpCommandError);
  assert.equal(wrong.errorClass, "CommandNotFound");
  assert.match(wrong.description, /no-such-command/);
  assert.match(wrong.message, new RegExp(`^QMP socket ${qemu.socket}: no-such-command was refused`));
  const status = await client.execute("query-status") as { status: string };
  assert.equal(status.status, "paused", "a refusal does not end the connection");
});

Deno.test("a descriptor that QEMU was given keeps its lock until closefd, or until QEMU is killed", async () => {
  await using qemu = await Qemu.start();
  const [one, two] = [`${qemu.directory}/one`, `${qemu.directory}/two`];
  const sent = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", new URL("support/send_locks.ts", import.meta.url).pathname, qemu.socket, one, two],
    stdout: "piped",
    stderr: "inherit",
  }).output();
  assert.ok(sent.success, "the sender has ended");
  assert.deepEqual(flockedFiles(qemu.child.pid), [one, two]);
  for (const file of [one, two]) assert.equal(await canLock(file, "shared"), false, file);
  {
    await using client = await QmpClient.connect(qemu.socket);
    await client.closeDescriptor("lock0");
    assert.equal(await canLock(one), true);
    assert.equal(await canLock(two), false);
    const again = await client.closeDescriptor("lock0").catch((error) => error);
    assert.ok(again instanceof QmpCommandError, "it is not there any more");
  }
  assert.equal(await canLock(two), false, "it stays past the connection");
  await qemu.kill();
  assert.equal(await canLock(two), true);
});

Deno.test("of several connections made at once, each sends on its own", async () => {
  await using one = await Qemu.start();
  await using two = await Qemu.start();
  const before = ownSockets();
  const guests = [one, two, one, two];
  // QEMU serves one connection at a time, so the second on each socket waits for its turn.
  await Promise.all(guests.map(async (qemu, index) => {
    const path = `${qemu.directory}/lock${index}`;
    using file = await Deno.open(path, { read: true, write: true, create: true });
    file.lockSync(true);
    const client = await QmpClient.connect(qemu.socket, { expectedPid: qemu.child.pid });
    try {
      await client.sendDescriptor(`lock${index}`, ownNumbers(path)[0]!);
    } finally {
      await client.close();
    }
  }));
  for (const [index, qemu] of guests.entries()) {
    assert.ok(flockedFiles(qemu.child.pid).includes(`${qemu.directory}/lock${index}`), String(index));
  }
  // The runtime's own aside; and other test files have sockets in this process for a while.
  await until("no socket is left", () => ownSockets() <= before + 2);
});

/** Connections until the kernel refuses one more: QEMU stands still and takes none. */
async function fillQueue(socket: string): Promise<Deno.Conn[]> {
  const waiting: Deno.Conn[] = [];
  for (let index = 0; index < 100; index++) {
    try {
      waiting.push(await Deno.connect({ transport: "unix", path: socket }));
    } catch {
      return waiting;
    }
  }
  throw new Error("the queue of connections is never full");
}

/** How the threads of a process are; proc_pid_stat(5). */
function threadStates(pid: number): string[] {
  return Array.from(
    Deno.readDirSync(`/proc/${pid}/task`),
    ({ name }) => /\) (\S) /.exec(Deno.readTextFileSync(`/proc/${pid}/task/${name}/stat`))![1]!,
  );
}

Deno.test("a monitor whose queue of connections is full is asked again until the time is over", async () => {
  await using qemu = await Qemu.start();
  qemu.child.kill("SIGSTOP");
  // Until then it may take one more, and the queue has room again.
  await until("it stands still", () => threadStates(qemu.child.pid).every((state) => state === "T"));
  const waiting = await fillQueue(qemu.socket);
  try {
    const begun = performance.now();
    await unavailable(
      QmpClient.connect(qemu.socket, { deadlineMs: 300 }),
      /no connection within 300 ms/,
    );
    assert.ok(performance.now() - begun >= 300);
    const connecting = QmpClient.connect(qemu.socket, { deadlineMs: 30_000 });
    qemu.child.kill("SIGCONT");
    for (const connection of waiting.splice(0)) connection.close();
    await (await connecting).close();
  } finally {
    for (const connection of waiting) connection.close();
  }
});

Deno.test("a monitor at which another process sits is not used", async () => {
  await using qemu = await Qemu.start();
  await unavailable(
    QmpClient.connect(qemu.socket, { expectedPid: Deno.pid }),
    new RegExp(`belongs to process ${qemu.child.pid}, not to the guest's ${Deno.pid}`),
  );
});

Deno.test("a QEMU that dies ends what waits for it", async () => {
  await using qemu = await Qemu.start();
  await using client = await QmpClient.connect(qemu.socket);
  await qemu.kill();
  await unavailable(client.execute("query-status"), /closed the connection|Broken pipe/);
  await unavailable(client.execute("query-status"), /closed the connection|Broken pipe/);
});

Deno.test("no socket, no listener", async () => {
  const directory = await Deno.makeTempDir({ prefix: "lockvisor-test-" });
  try {
    const path = `${directory}/qmp`;
    await unavailable(QmpClient.connect(path), /^QMP socket \S+: it is not there$/);
    Deno.listen({ transport: "unix", path }).close();
    if (!exists(path)) await Deno.writeTextFile(path, "");
    await unavailable(QmpClient.connect(path), /nobody listens on it/);
    await unavailable(QmpClient.connect(`${directory}/${"x".repeat(200)}`), /no connection/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

const FAULTS: Record<string, { serve: (connection: Deno.UnixConn) => Promise<void>; says: RegExp }> = {
  "is silent": { serve: () => Promise.resolve(), says: /no greeting within 200 ms/ },
  "hangs up": {
    serve: (connection) => Promise.resolve(connection.close()),
    says: /closed the connection|Broken pipe/,
  },
  "greets only": { serve: (c) => say(c, GREETING), says: /no reply to qmp_capabilities within 200 ms/ },
  "greets by halves": { serve: (c) => say(c, GREETING.slice(0, 10)), says: /no greeting within 200 ms/ },
  "answers another question": {
    serve: (c) => say(c, GREETING + '{"return": {}, "id": 77}\n'),
    says: /no reply to qmp_capabilities within 200 ms/,
  },
  "sends garbage": {
    serve: (c) => say(c, "\u0007\u001b[31mhello\n"),
    says: /no JSON: \\u0007\\u001b\[31mhello$/,
  },
  "sends another protocol's JSON": { serve: (c) => say(c, '{"hello": 1}\n'), says: /no message of QMP/ },
  "never ends its line": {
    serve: async (c) => {
      while (true) await say(c, "x".repeat(65536));
    },
    says: /a line of more than 1048576 bytes/,
  },
  "talks without an end": {
    serve: async (c) => {
      while (true) await say(c, '{"event": "NOISE", "data": {}}\n'.repeat(1000));
    },
    says: /no greeting within 200 ms/,
  },
};

for (const [fault, { serve, says }] of Object.entries(FAULTS)) {
  Deno.test(`a monitor that ${fault} is given up in time`, async () => {
    await using monitor = new FakeMonitor(serve);
    const begun = performance.now();
    const error = await unavailable(QmpClient.connect(monitor.socket, { deadlineMs: 200 }), says);
    assert.ok(error.message.startsWith(`QMP socket ${monitor.socket}: `));
    assert.ok(performance.now() - begun < 5000);
  });
}

Deno.test("a monitor that stops reading does not keep a long command waiting", async () => {
  await using monitor = new FakeMonitor(async (connection) => {
    await say(connection, GREETING);
    await connection.read(new Uint8Array(1024));
    await say(connection, ACCEPTED);
  });
  await using client = await QmpClient.connect(monitor.socket, { deadlineMs: 200 });
  await unavailable(client.execute("x", { text: "y".repeat(4_000_000) }), /no reply to x within 200 ms/);
});
