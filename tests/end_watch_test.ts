import assert from "node:assert/strict";
import { EndWatch } from "../lib/process/end_watch.ts";
import { identifyProcess } from "../lib/process/process_identity.ts";
import { until } from "./support/until.ts";

/** A process that does nothing until it is killed. */
function sleeper(): { child: Deno.ChildProcess; identity: NonNullable<ReturnType<typeof identifyProcess>> } {
  const child = new Deno.Command("sleep", { args: ["300"], stdin: "null", stdout: "null", stderr: "null" })
    .spawn();
  return { child, identity: identifyProcess(child.pid)! };
}

function ownDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

function ownThreads(): number {
  return [...Deno.readDirSync("/proc/self/task")].length;
}

// The wait stays on its thread until the next end.
const patient = { sanitizeOps: false, sanitizeResources: false };

Deno.test({
  name: "each of 200 processes is told when it ends, once, without a thread for each",
  ...patient,
  async fn() {
    const watch = new EndWatch();
    const ended: number[] = [];
    const sleepers = Array.from({ length: 200 }, sleeper);
    const threads = ownThreads();
    for (const { identity } of sleepers) {
      assert.equal(watch.watch(identity, () => ended.push(identity.pid)).kind, "watched");
    }
    assert.ok(ownThreads() <= threads + 2, `${threads} threads before, ${ownThreads()} now`);
    const descriptors = ownDescriptors();
    for (const { child } of sleepers.slice(0, 100)) child.kill("SIGKILL");
    await until("100 ends are told", () => ended.length === 100, 5000);
    assert.deepEqual(ended.sort(), sleepers.slice(0, 100).map(({ child }) => child.pid).sort());
    assert.equal(watch.size, 100);
    for (const { child } of sleepers.slice(100)) child.kill("SIGKILL");
    await until("all ends are told", () => ended.length === 200, 5000);
    assert.equal(new Set(ended).size, 200);
    await Promise.all(sleepers.map(({ child }) => child.status));
    assert.ok(ownDescriptors() <= descriptors - 200, "their pidfds are closed");
  },
});

Deno.test({
  name: "a process that lives is not taken for one that was forgotten when its end was on its way",
  ...patient,
  async fn() {
    const watch = new EndWatch();
    const told: string[] = [];
    const [one, other] = [sleeper(), sleeper()];
    const watched = watch.watch(one.identity, () => told.push("one"));
    assert.ok(watched.kind === "watched");
    await new Promise((resolve) => setTimeout(resolve, 50)); // the thread waits in the kernel
    one.child.kill("SIGKILL");
    // Without a turn of ours: the thread has heard of the end, and nobody of what it heard.
    const deadline = performance.now() + 200;
    while (performance.now() < deadline) { /* nothing */ }
    watched.watched.forget();
    watch.watch(other.identity, () => told.push("other")); // by a pidfd with the same number
    await one.child.status;
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(told, []);
    assert.equal(watch.size, 1);
    other.child.kill("SIGKILL");
    await until("the other's end is told", () => told.length > 0, 5000);
    assert.deepEqual(told, ["other"]);
    await other.child.status;
  },
});

Deno.test({
  name: "a process that is forgotten is not told, nor is one that ended before",
  ...patient,
  async fn() {
    const watch = new EndWatch();
    const told: string[] = [];
    const [one, other, dead] = [sleeper(), sleeper(), sleeper()];
    dead.child.kill("SIGKILL");
    await dead.child.status;
    assert.equal(watch.watch(dead.identity, () => told.push("dead")).kind, "ended");
    assert.equal(watch.watch({ ...one.identity, startTime: "1" }, () => told.push("another")).kind, "ended");
    const watched = watch.watch(one.identity, () => told.push("one"));
    assert.ok(watched.kind === "watched");
    watch.watch(other.identity, () => told.push("other"));
    watched.watched.forget();
    watched.watched.forget();
    one.child.kill("SIGKILL");
    await one.child.status;
    other.child.kill("SIGKILL");
    await until("the other is told", () => told.length > 0, 5000);
    await other.child.status;
    assert.deepEqual(told, ["other"]);
  },
});
