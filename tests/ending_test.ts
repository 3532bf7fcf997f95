import assert from "node:assert/strict";
import { closeDescriptor, flockDescriptor, pidfdGetfd, pidfdOpen } from "../lib/libc/pidfd.ts";
import { sendSignal, waitForEnd } from "../lib/process/ending.ts";
import { identifyProcess, identifySelf, type ProcessIdentity } from "../lib/process/process_identity.ts";
import { canLock } from "./support/kernel.ts";
import { until } from "./support/until.ts";

// The C library stays open once it is used; opened here, it is nothing that a test has left behind.
await waitForEnd(identifySelf(), { timeoutMs: 0 });

/** A process that does nothing for a minute. */
class Sleeper implements AsyncDisposable {
  readonly #child = new Deno.Command("sleep", { args: ["60"], stdin: "null" }).spawn();
  readonly identity: ProcessIdentity = identifyProcess(this.#child.pid)!;

  async kill(): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch { /* it has ended */ }
    await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** Descriptors of this process that are pidfds of one process; other test files run in this process too. */
function pidfds(pid: number): number {
  return Array.from(Deno.readDirSync("/proc/self/fdinfo")).filter(({ name }) => {
    try {
      const info = Deno.readTextFileSync(`/proc/self/fdinfo/${name}`);
      return info.includes(`\nPid:\t${pid}\n`);
    } catch {
      return false;
    }
  }).length;
}

Deno.test("a process's end is waited for, no longer than wanted, and no pidfd is left", async () => {
  await using sleeper = new Sleeper();
  const before = pidfds(sleeper.identity.pid); // the runtime has one of each child
  const begun = performance.now();
  assert.equal(await waitForEnd(sleeper.identity, { timeoutMs: 100 }), "timeout");
  assert.ok(performance.now() - begun >= 99);
  assert.equal(await waitForEnd(sleeper.identity, { timeoutMs: 0 }), "timeout");
  assert.equal(pidfds(sleeper.identity.pid), before);
  const waiting = waitForEnd(sleeper.identity, { timeoutMs: Infinity });
  await sleeper.kill();
  assert.equal(await waiting, "ended");
  assert.equal(await waitForEnd(sleeper.identity, { timeoutMs: 0 }), "ended", "at once when it has ended");
});

Deno.test("a wait can be given up", async () => {
  await using sleeper = new Sleeper();
  const giveUp = new AbortController();
  const waiting = waitForEnd(sleeper.identity, { timeoutMs: Infinity, signal: giveUp.signal });
  giveUp.abort();
  assert.equal(await waiting, "aborted");
});

Deno.test("many waits at once end with their processes", async () => {
  const sleepers = Array.from({ length: 40 }, () => new Sleeper());
  const waits = sleepers.map(({ identity }) => waitForEnd(identity, { timeoutMs: 10_000 }));
  for (const { identity } of sleepers) assert.equal(sendSignal(identity, "SIGTERM"), "sent");
  assert.deepEqual([...new Set(await Promise.all(waits))], ["ended"]);
  for (const sleeper of sleepers) await sleeper.kill();
});

Deno.test("a process that got the pid later is neither waited for nor signalled", async () => {
  await using sleeper = new Sleeper();
  const earlier = { ...sleeper.identity, startTime: String(Number(sleeper.identity.startTime) - 1) };
  const boot = { ...sleeper.identity, bootId: "00000000-0000-0000-0000-000000000000" };
  for (const identity of [earlier, boot]) {
    assert.equal(await waitForEnd(identity, { timeoutMs: 1000 }), "ended");
    assert.equal(sendSignal(identity, "SIGKILL"), "ended");
  }
  const elsewhere = { ...sleeper.identity, pidNamespace: "pid:[1]" };
  assert.equal(await waitForEnd(elsewhere, { timeoutMs: 1000 }), "unseen");
  assert.equal(sendSignal(elsewhere, "SIGKILL"), "unseen");
  assert.equal(sendSignal(sleeper.identity, "none"), "sent", "it lives");
});

Deno.test("a process that its parent has not waited for has ended", async () => {
  const script = "sleep 60 & echo $!; exec sleep 60 >/dev/null"; // the second sleep never waits for the first
  const parent = new Deno.Command("sh", { args: ["-c", script], stdin: "null", stdout: "piped" }).spawn();
  try {
    const reader = parent.stdout.getReader();
    const pid = Number(new TextDecoder().decode((await reader.read()).value));
    const identity = identifyProcess(pid)!;
    await until(
      "the parent has become its second sleep",
      () => Deno.readTextFileSync(`/proc/${parent.pid}/comm`) === "sleep\n",
    );
    const waiting = waitForEnd(identity, { timeoutMs: 10_000 });
    assert.equal(sendSignal(identity, "SIGKILL"), "sent");
    assert.equal(await waiting, "ended");
    assert.match(Deno.readTextFileSync(`/proc/${pid}/stat`), /\) Z /);
    assert.equal(sendSignal(identity, "SIGTERM"), "ended");
    await reader.cancel();
  } finally {
    parent.kill("SIGKILL");
    await parent.status;
  }
});

Deno.test("a copy of another process's descriptor steers its lock", async () => {
  const file = await Deno.makeTempFile({ prefix: "lockvisor-test-" });
  const script = `exec 9<"$1"; flock -x 9; echo ready; exec sleep 60 >/dev/null`;
  const holder = new Deno.Command("sh", {
    args: ["-c", script, "sh", file],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  try {
    const reader = holder.stdout.getReader();
    await reader.read();
    await reader.cancel();
    assert.equal(await canLock(file), false);
    const opened = pidfdOpen(holder.pid);
    assert.equal(opened.outcome, "ok");
    if (opened.outcome !== "ok") return;
    assert.deepEqual(pidfdGetfd(opened.descriptor, 250), { outcome: "failed", errno: 9 });
    const copy = pidfdGetfd(opened.descriptor, 9);
    assert.equal(copy.outcome, "ok");
    if (copy.outcome !== "ok") return;
    assert.deepEqual(flockDescriptor(copy.descriptor, "unlock"), { outcome: "ok" });
    assert.equal(await canLock(file), true);
    using other = Deno.openSync(file, { write: true });
    other.lockSync(true);
    assert.deepEqual(flockDescriptor(copy.descriptor, "exclusive"), { outcome: "refused" });
    other.unlockSync();
    assert.deepEqual(flockDescriptor(copy.descriptor, "exclusive"), { outcome: "ok" });
    closeDescriptor(copy.descriptor);
    closeDescriptor(opened.descriptor);
    assert.equal(await canLock(file), false, "the lock is the other process's");
  } finally {
    holder.kill("SIGKILL");
    await holder.status;
    await Deno.remove(file);
  }
  assert.deepEqual(pidfdOpen(holder.pid), { outcome: "gone" });
});
