import assert from "node:assert/strict";
import type { AgentEvent } from "../lib/agent/event.ts";
import { Agent } from "./support/agent.ts";
import { processState, Told } from "./support/agent_scene.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/** A directory of hooks. */
class HookDirectory {
  constructor(readonly world: World, readonly path = `${world.directory}/hooks.d`) {
    Deno.mkdirSync(path);
    Deno.chmodSync(path, 0o755);
  }

  /** Puts a shell script there; `$OUT` is the test's directory. */
  add(name: string, script: string, mode = 0o755): void {
    const path = `${this.path}/${name}`;
    Deno.writeTextFileSync(
      path,
      `#!/bin/sh\nexec 2>/dev/null # what outlives it must not keep the agent's own\nOUT=${this.world.directory}\n${script}\n`,
    );
    Deno.chmodSync(path, mode);
  }

  /** What scripts have written into a file. */
  lines(name: string): string[] {
    try {
      return Deno.readTextFileSync(`${this.world.directory}/${name}`).split("\n").filter((line) =>
        line !== ""
      );
    } catch {
      return [];
    }
  }
}

/** A guest that starts and ends: three events. */
async function shortLife(world: World, name = "vm1"): Promise<void> {
  const { code, stderr } = await world.run(["run", "--name", name, "--", "true"]);
  assert.equal(code, 0, stderr);
}

function failures(agent: Agent): string[] {
  return new Told(agent).of("hook-failed").map(({ message }) => message);
}

Deno.test("hooks are told of all events as JSON, in order, one after the other", async () => {
  await using world = await World.create();
  const hooks = new HookDirectory(world);
  hooks.add("10-first", 'cat >> $OUT/told; echo "first $LOCKVISOR_EVENT $LOCKVISOR_GUEST" >> $OUT/order');
  hooks.add("20-second", 'echo "second $LOCKVISOR_EVENT $LOCKVISOR_GUEST" >> $OUT/order'); // reads nothing
  await using agent = await Agent.start(world);
  using events = await agent.events("last=1000");
  for (let round = 0; round < 5; round++) await shortLife(world, `vm ${round}'$(x)`);
  await until(
    "all are told",
    () => hooks.lines("order").filter((line) => /second guest-ended/.test(line)).length === 5,
  );
  await agent.end();
  const told = hooks.lines("told").map((line): AgentEvent => JSON.parse(line));
  const seen = await events.take(told.length);
  assert.deepEqual(told, seen);
  assert.equal(told.at(-1)?.type, "agent-stopping", "what comes at the end is told too");
  const order = told.flatMap(({ type, guest }) =>
    ["first", "second"].map((hook) => `${hook} ${type} ${guest?.name ?? ""}`)
  );
  assert.deepEqual(hooks.lines("order"), order);
  assert.deepEqual(failures(agent), []);
});

Deno.test("hooks that fail, take too long or cannot be started are told, and hinder nobody", async () => {
  await using world = await World.create();
  const hooks = new HookDirectory(world);
  hooks.add("10-fails", "exit 3");
  hooks.add("20-dies", "kill -9 $$");
  hooks.add(
    "30-hangs",
    '[ "$LOCKVISOR_EVENT" = guest-started ] || exit 0\nsleep 600 & echo $! >> $OUT/pids\necho $$ >> $OUT/pids; wait',
  );
  hooks.add("40-no-program", "");
  await Deno.writeTextFile(`${hooks.path}/40-no-program`, "#!/no/such/program\n");
  hooks.add("50-last", "echo $LOCKVISOR_EVENT >> $OUT/told");
  await using agent = await Agent.start(world, ["--hook-timeout", "300ms"]);
  await shortLife(world);
  await until("the last hook is told of the end", () => hooks.lines("told").includes("guest-ended"));
  const told = failures(agent);
  const path = (name: string) => `${hooks.path}/${name}`;
  for (const type of ["agent-started", "guest-started", "guest-ended"]) {
    assert.ok(told.includes(`hook ${path("10-fails")} ended with status 3 on ${type}`), told.join("\n"));
    assert.ok(told.includes(`hook ${path("20-dies")} ended by SIGKILL on ${type}`), told.join("\n"));
  }
  const late = `hook ${path("30-hangs")} took longer than 0.3 s on guest-started; it was killed`;
  assert.equal(told.filter((message) => message === late).length, 1);
  assert.ok(told.some((message) => message.startsWith(`hook ${path("40-no-program")} cannot be started: `)));
  const pids = hooks.lines("pids").map(Number);
  assert.equal(pids.length, 2);
  await until(
    "its whole group is gone",
    () => pids.every((pid) => [undefined, "Z"].includes(processState(pid))),
  );
  assert.deepEqual(
    hooks.lines("told"),
    ["agent-started", "guest-started", "guest-ended"],
    "not of hook-failed",
  );
});

Deno.test("hooks that others could have written, and what editors leave, are not called", async () => {
  await using world = await World.create();
  const hooks = new HookDirectory(world);
  const tell = 'echo "$0" >> $OUT/called';
  for (const name of ["tell~", ".tell.swp", "#tell#", "tell.bak", "tell.dpkg-new", "tell.swp"]) {
    hooks.add(name, tell);
  }
  hooks.add("writable", tell, 0o777);
  hooks.add("group-writable", tell, 0o775);
  hooks.add("no-program", tell, 0o644);
  hooks.add("foreign", tell);
  if (Deno.uid() === 0) await Deno.chown(`${hooks.path}/foreign`, 65534, 65534);
  else await Deno.remove(`${hooks.path}/foreign`);
  await Deno.mkdir(`${hooks.path}/directory`);
  await Deno.symlink("/no/such/file", `${hooks.path}/dangling`);
  hooks.add("zz-good", tell);
  await using agent = await Agent.start(world);
  await until("the good one is called", () => hooks.lines("called").length > 0);
  const refused = failures(agent).join("\n");
  assert.match(refused, /hook \S+\/writable is not called: it may be written by others; chmod go-w/);
  assert.match(refused, /hook \S+\/group-writable is not called: it may be written by others/);
  if (Deno.uid() === 0) assert.match(refused, /hook \S+\/foreign is not called: it belongs to user 65534/);
  await Deno.chmod(hooks.path, 0o777);
  await shortLife(world);
  await until(
    "the directory is refused",
    () => failures(agent).some((message) => /no hook of \S+ is called/.test(message)),
  );
  await until("the end is told", () => new Told(agent).of("guest-ended").length === 1);
  await Deno.chmod(hooks.path, 0o755);
  await agent.end();
  const called = hooks.lines("called");
  assert.deepEqual([...new Set(called)], [`${hooks.path}/zz-good`]);
});

Deno.test("a hook that hangs when the agent ends does not keep it, and does not outlive it", async () => {
  await using world = await World.create();
  const hooks = new HookDirectory(world);
  hooks.add("hangs", "echo $$ >> $OUT/pids; sleep 600");
  await using agent = await Agent.start(world, ["--hook-timeout", "1h"]);
  await until("it runs", () => hooks.lines("pids").length === 1);
  const { code } = await agent.end();
  assert.equal(code, 0);
  const [pid] = hooks.lines("pids").map(Number);
  await until("it is gone", () => [undefined, "Z"].includes(processState(pid!)));
});

Deno.test("events in a great number are told to the hooks in order, or it is told that some were not", async () => {
  await using world = await World.create();
  const hooks = new HookDirectory(world);
  hooks.add("slow", "cat >> $OUT/told; [ -e $OUT/go ] || sleep 600");
  await using agent = await Agent.start(world, ["--audit-interval", "100ms", "--hook-timeout", "1h"]);
  await until("it hangs with the first event", () => hooks.lines("told").length === 1);
  const line =
    '{"action":"break","host":{"id":"h","name":"far"},"target":"/disk","holders":[],"reason":"r"}\n';
  await Deno.writeTextFile(`${world.lockspace}/audit.log`, line.repeat(1100), { append: true });
  await until(
    "the hooks are too slow",
    () => failures(agent).some((message) => /^1000 events were not told/.test(message)),
  );
  assert.equal((await agent.get("/v1/guests")).status, 200);
  await Deno.writeTextFile(`${world.directory}/go`, "");
  const slow = Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name)).find((pid) => {
    try {
      return Deno.readTextFileSync(`/proc/${pid}/cmdline`).includes(`${hooks.path}/slow`);
    } catch {
      return false;
    }
  });
  Deno.kill(-slow!, "SIGKILL");
  await until("the rest is told", () => hooks.lines("told").length === 1 + 100);
  const numbers = hooks.lines("told").map((each) => Number(JSON.parse(each).id.split("-")[1]));
  assert.deepEqual(numbers.slice(1), numbers.slice(1).toSorted((one, other) => one - other));
});

Deno.test("a hook never gets a lock's descriptor, while locks are taken and given up all the time", async () => {
  await using world = await World.create();
  const hooks = new HookDirectory(world);
  hooks.add("look", 'for each in /proc/$$/fd/*; do echo "${each##*/} $(readlink $each)"; done >> $OUT/open');
  const names = ["vm1", "vm2", "vm3", "vm4"];
  for (const name of names) await world.startRunning(["run", "--name", name, "--", "sleep", "600"]);
  await using agent = await Agent.start(world);
  await Promise.all(names.map(async (name) => {
    const disks = {
      disks: [{ path: await world.disk(`${name}.a`) }, { path: await world.disk(`${name}.b`) }],
    };
    for (let round = 0; round < 8; round++) {
      for (const way of ["acquire", "release"]) {
        const { status, body } = await agent.post(`/v1/guests/${name}/${way}`, disks);
        assert.equal(status, 200, body);
      }
    }
  }));
  // One event for each acquire and release, and that of the agent itself; of guests that ran before no hook is told.
  const wanted = 4 * 2 * 8 + 1;
  await until(
    "the hook has looked each time",
    () => hooks.lines("open").filter((line) => line.startsWith("0 ")).length >= wanted,
  );
  // The shell has some of its own. A lock's would be in the lockspace, a holder's an anonymous file or a pidfd.
  const strange = /lockspace|\/run\/|anon_inode|memfd|\(deleted\)/;
  assert.deepEqual(hooks.lines("open").filter((line) => strange.test(line)), []);
  assert.deepEqual(failures(agent), []);
});
