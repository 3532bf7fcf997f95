import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import { filesOf, freeFiles, guestsOf, looks, recordOf, Told } from "./support/agent_scene.ts";
import { holders } from "./support/holders.ts";
import { flockedFiles } from "./support/kernel.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/** Two guests, one of them with a disk that a holder has. What is in the kernel, to be compared later. */
async function twoGuests(world: World) {
  const [a, b, more] = [await world.disk("a"), await world.disk("b"), await world.disk("more")];
  const one = await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "600"]);
  const two = await world.startRunning(["run", "--name", "vm2", "--disk", b, "--", "sleep", "600"]);
  const { code, stderr } = await world.run(["acquire", "vm1", "--disk", more]);
  assert.equal(code, 0, stderr);
  const kernel = (some = [one, two]) =>
    some.map(({ pid }) => [pid, ...holders(pid)].map((each) => [each, flockedFiles(each)]));
  return { one, two, kernel };
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.test(`${signal} ends the agent orderly, and touches no guest, no holder and no lock`, async () => {
    await using world = await World.create();
    const { kernel } = await twoGuests(world);
    const before = kernel();
    await using agent = await Agent.start(world);
    using events = await agent.events();
    const socket = `${world.runtimeDir}/lockvisor.sock`;
    assert.ok(isThere(socket));
    agent.kill(signal);
    const { code, signal: by } = await agent.finished();
    assert.deepEqual([code, by], [0, null]);
    assert.equal(isThere(socket), false);
    assert.deepEqual(kernel(), before);
    assert.equal((await events.until("agent-stopping")).type, "agent-stopping");
    assert.equal((await world.run(["attach"])).code, 0);
    assert.deepEqual(kernel(), before);
  });
}

Deno.test("an agent that was killed is followed by one that sees all, and replaces its socket", async () => {
  await using world = await World.create();
  const { one, two, kernel } = await twoGuests(world);
  await using first = await Agent.start(world);
  const before = kernel();
  const second = await Agent.refused(world, []);
  assert.equal(second.code, 69);
  assert.match(
    second.stderr,
    /another agent watches the guests of .* already; stop it, or ask it for \/healthz/,
  );
  assert.equal((await guestsOf(first)).length, 2, "the first one is not disturbed");
  first.kill("SIGKILL");
  await first.finished();
  const socket = `${world.runtimeDir}/lockvisor.sock`;
  const stale = (await Deno.lstat(socket)).ino;
  assert.deepEqual(kernel(), before);
  // What happens while there is none.
  await two.kill();
  await world.startRunning(["run", "--name", "vm3", "--disk", `${world.directory}/b`, "--", "sleep", "600"]);
  await using next = await Agent.start(world);
  assert.notEqual((await Deno.lstat(socket)).ino, stale);
  const told = new Told(next);
  const seen = told.of("guest-found").map(({ guest }) => guest?.name).sort();
  assert.deepEqual(seen, ["vm1", "vm3"]);
  assert.deepEqual((await guestsOf(next)).map(({ name, locks }) => [name, locks.lost]).sort(), [
    ["vm1", 0],
    ["vm3", 0],
  ]);
  assert.deepEqual(kernel([one]), before.slice(0, 1));
  for (const name of ["vm1", "vm3"]) {
    assert.deepEqual(await freeFiles(filesOf(world, recordOf(world, name))), []);
  }
  const [name] = Array.from(Deno.readDirSync(world.runtimeDir), (entry) => entry.name)
    .filter((each) => each.startsWith("lockvisor.sock."));
  assert.equal(name, undefined, "no passing name is left");
});

Deno.test("a socket's name that is something else is left alone, and told", async () => {
  await using world = await World.create();
  const path = `${world.directory}/socket`;
  await Deno.writeTextFile(path, "mine");
  const { code, stderr } = await Agent.refused(world, ["--socket", path]);
  assert.equal(code, 65);
  assert.match(stderr, /is no socket/);
  assert.equal(await Deno.readTextFile(path), "mine");
});

Deno.test("SIGHUP: a new directory of hooks and another audit interval count, and what is wrong changes nothing", async () => {
  await using world = await World.create();
  const hooks = async (name: string) => {
    const directory = `${world.directory}/${name}`;
    await Deno.mkdir(directory, { mode: 0o755 });
    const script = `#!/bin/sh\necho "$LOCKVISOR_EVENT" >> ${world.directory}/${name}.told\n`;
    await Deno.writeTextFile(`${directory}/tell`, script, { mode: 0o755 });
    return directory;
  };
  const toldBy = (name: string) => {
    try {
      return Deno.readTextFileSync(`${world.directory}/${name}.told`).trim().split("\n");
    } catch {
      return [];
    }
  };
  const configure = (text: string) => Deno.writeTextFile(world.configFile, text);
  const [old, next] = [await hooks("old"), await hooks("next")];
  await configure(`[agent]\nhooks = "${old}"\naudit-interval = "1h"\n`);
  await using agent = await Agent.start(world, ["--log-level", "debug"], { hooks: "configured" });
  const told = new Told(agent);
  await until("the first hook is called", () => toldBy("old").includes("agent-started"));

  const wrong = [
    '[agent]\nhooks = "x"\nnonsense = 1\n',
    `[agent]\naudit-interval = "soon"\nhooks = "${next}"\n`,
    "[agent\n",
    "lockspace = 7\n",
  ];
  for (const [index, text] of wrong.entries()) {
    await configure(text);
    agent.kill("SIGHUP");
    const kept = () =>
      agent.log.filter(({ message }) => message.startsWith("the configuration stays as it was:"));
    await until(`it says that nothing changes: ${text}`, () => kept().length === index + 1);
    assert.match(kept().at(-1)!.message, /lockvisor\.toml/);
  }
  await configure("");
  assert.equal((await world.run(["run", "--name", "vm1", "--", "true"])).code, 0);
  await until("the old hook is called", () => toldBy("old").includes("guest-ended"));

  await configure(
    `[agent]\nhooks = "${next}"\naudit-interval = "100ms"\nsocket = "${world.directory}/other"\n`,
  );
  agent.kill("SIGHUP");
  await agent.logged(({ message }) => message === "the configuration was read anew");
  assert.ok(agent.log.some(({ message }) => /^socket: a change takes effect when/.test(message)));
  assert.equal(isThere(`${world.directory}/other`), false);
  await looks(agent, 3);
  await world.startRunning(["run", "--name", "vm2", "--", "sleep", "600"]);
  await told.first("vm2", "guest-started");
  await until("the new hook is called", () => toldBy("next").includes("guest-started"));
  assert.equal(toldBy("old").filter((type) => type === "guest-started").length, 1);
  assert.equal((await guestsOf(agent)).length, 1, "it listens where it did");
});
