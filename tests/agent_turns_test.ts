import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import { formatRequest } from "./support/agent_client.ts";
import { kernelLocks } from "./support/guest_commands.ts";
import { canLock, flockedFiles, lockFiles } from "./support/kernel.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

Deno.test("of fifty clients that want a disk for two guests at once one gets it", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  for (const name of ["vm1", "vm2"]) await world.startRunning(["run", "--name", name, "--", "sleep", "60"]);
  await using agent = await Agent.start(world);
  using events = await agent.events();
  const { identities } = (await agent.get(`/v1/locks?disk=${disk}`)).json.resource;
  const answers = await Promise.all(Array.from({ length: 50 }, async (_, at) => {
    const guest = at % 2 === 0 ? "vm1" : "vm2";
    const { status, json } = await agent.post(`/v1/guests/${guest}/acquire`, { disks: [{ path: disk }] });
    return { guest, status, json };
  }));
  const locked = answers.filter(({ status, json }) => status === 200 && json.resources[0].result === "lock");
  assert.equal(locked.length, 1, JSON.stringify(answers.map(({ status }) => status)));
  const [{ guest: winner }] = locked as [typeof locked[number]];
  for (const { guest, status, json } of answers) {
    if (guest === winner) {
      assert.deepEqual([status, /^(lock|held)$/.test(json.resources[0].result)], [200, true]);
    } else assert.deepEqual([status, json.error.holder.name], [409, winner]);
  }
  const refusals = await Promise.all(
    answers.filter(({ status }) => status === 409).map(() => events.until("lock-refused")),
  );
  assert.equal(refusals.length, 25);
  assert.ok(refusals.every(({ guest, holder }) => guest?.name !== winner && holder?.name === winner));
  const granted = () => events.seen.filter(({ type }) => type === "lock-granted").length;
  if (granted() === 0) await events.until("lock-granted"); // told when the winner's operation has ended
  assert.equal(granted(), 1);

  const keys: string[] = identities.map(({ key }: { key: string }) => key);
  for (const key of keys) {
    assert.equal(await canLock(`${world.lockspace}/${key}.a`), false, "the kernel's view");
  }
  // A look at /proc/locks while others change it may show a line twice, or miss one.
  await until("the kernel shows each slot locked by one process", () => {
    const takers = new Set(kernelLocks(world).filter((line) => keys.some((key) => line.startsWith(key))));
    return takers.size === 2 * keys.length;
  });
  const { holders } = (await agent.get(`/v1/locks?disk=${disk}`)).json;
  assert.deepEqual(holders.map(({ name }: { name: string }) => name), [winner]);
});

Deno.test("the agent and commands work on one guest at the same time, one after the other", async () => {
  await using world = await World.create();
  const disks = await Promise.all(["a", "b", "c", "d"].map((name) => world.disk(name)));
  const guest = await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  await using agent = await Agent.start(world);
  const rounds = [1, 2, 3];
  const byAgent = async (disk: string) => {
    for (const _ of rounds) {
      for (const command of ["acquire", "release"]) {
        const { status, body } = await agent.post(`/v1/guests/vm1/${command}`, { disks: [{ path: disk }] });
        assert.equal(status, 200, body);
      }
    }
  };
  const byCommand = async (disk: string) => {
    for (const _ of rounds) {
      for (const command of ["acquire", "release"]) {
        const { code, stderr } = await world.run([command, "vm1", "--disk", disk]);
        assert.equal(code, 0, stderr);
      }
    }
  };
  const pausing = async () => {
    for (const _ of rounds) {
      for (const command of ["pause", "resume"]) {
        const { status, body } = await agent.post(`/v1/guests/vm1/${command}`);
        assert.equal(status, 200, body);
      }
    }
  };
  const [a, b, c, d] = disks as [string, string, string, string];
  await Promise.all([
    byAgent(a),
    byAgent(b),
    byCommand(c),
    byCommand(d),
    pausing(),
    agent.post("/v1/attach"),
  ]);
  const shown = (await agent.get("/v1/guests/vm1")).json;
  assert.deepEqual([shown.state, shown.resources, shown.locks.held, shown.locks.total], [
    "running",
    [],
    1,
    1,
  ]);
  const free = await Promise.all(
    lockFiles(world.lockspace).map((name) => canLock(`${world.lockspace}/${name}`)),
  );
  assert.equal(free.filter((each) => !each).length, 2, "the lease on itself");
  assert.equal(flockedFiles(guest.pid).length, 2);
});

Deno.test("forty stops that take their time do not keep others waiting", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const stubborn = Array.from({ length: 40 }, (_, at) => `vm${at}`);
  const started = stubborn.map((name) =>
    world.startRunning(["run", "--name", name, "--", "sh", "-c", 'trap "" TERM; exec sleep 60'])
  );
  await Promise.all([...started, world.startRunning(["run", "--name", "other", "--", "sleep", "60"])]);
  await using agent = await Agent.start(world);
  let stopped = 0;
  const stops = stubborn.map(async (name) => {
    const { status, json, body } = await agent.post(`/v1/guests/${name}/stop`, { killAfter: "1s" });
    stopped++;
    assert.deepEqual([status, json.by, json.locks?.held], [200, "SIGKILL", false], body);
  });
  // They are at work: each has sent SIGTERM to somebody, or waits for its turn.
  assert.equal((await agent.get("/healthz")).status, 200);
  for (const command of ["acquire", "release", "acquire"]) {
    const { status, body } = await agent.post(`/v1/guests/other/${command}`, { disks: [{ path: disk }] });
    assert.equal(status, 200, body);
  }
  assert.equal((await agent.post("/v1/guests/other/pause")).status, 200);
  assert.equal((await agent.get("/v1/guests/other")).json.state, "paused");
  const before = stopped;
  await Promise.all(stops);
  assert.ok(before < 24, `answered only after ${before} stops, when room was left by them`);
  assert.deepEqual((await agent.get("/v1/guests")).json.guests.map(({ name }: { name: string }) => name), [
    "other",
  ]);
});

Deno.test("a stop is not kept waiting by what waits for the guest", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  await using agent = await Agent.start(world);
  const { uuid } = (await agent.get("/v1/guests/vm1")).json;
  // Another lockvisor that hangs while it works on the guest: whoever wants to work on it waits.
  const gate = await Deno.open(`${world.runtimeDir}/guests/${uuid}.lock`, { create: true, write: true });
  await gate.lock(true);
  const waiting = agent.post(`/v1/guests/${uuid}/acquire`, { disks: [{ path: disk }] });
  const { status, json } = await agent.post(`/v1/guests/${uuid}/stop`);
  assert.deepEqual([status, json.by], [200, "SIGTERM"]);
  await guest.finished();
  gate.close();
  assert.equal((await waiting).status, 404);
});

Deno.test("what a client has given up waiting for is not done any more", async () => {
  await using world = await World.create();
  const [first, second] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  await using agent = await Agent.start(world);
  const [{ uuid }] = (await agent.get("/v1/guests")).json.guests;
  // Another lockvisor works on the guest: the first request waits for it, and the second one for the first.
  const path = `${world.runtimeDir}/guests/${uuid}.lock`;
  using busy = await Deno.open(path, { read: true, write: true, create: true, mode: 0o600 });
  await busy.lock(true);
  const acquire = (disk: string) => ({
    method: "POST",
    path: "/v1/guests/vm1/acquire",
    headers: { "content-type": "application/json" },
    body: { disks: [{ path: disk }] },
  });
  const waiting = agent.ask(acquire(first));
  using impatient = await agent.connect();
  await impatient.send(formatRequest(acquire(second)));
  await until("both wait", async () => {
    const { body } = await agent.get("/metrics");
    return /lockvisor_http_connections [3-9]/.test(body);
  });
  // The kernel calls the agent's ends by the name that it listened under first: one listens, the others are connected.
  const connected = () =>
    Deno.readTextFileSync("/proc/net/unix").split("\n")
      .filter((line) => line.endsWith(` ${world.runtimeDir}/lockvisor.sock.${agent.pid}`)).length - 1;
  await until("nobody else is connected", () => connected() === 2);
  impatient.close();
  await until("the agent has noticed", () => connected() === 1);
  await busy.unlock();
  assert.equal((await waiting).status, 200);
  const { guests: [{ resources }] } = (await agent.get("/v1/guests")).json;
  assert.deepEqual(resources.map(({ name }: { name: string }) => name), [first]);
  assert.equal((await agent.get(`/v1/locks?disk=${second}`)).json.locked, false);
});
