import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import { ApiContract } from "./support/api_contract.ts";
import { flockedFiles } from "./support/kernel.ts";
import { monitoredGuest } from "./support/monitored_guest.ts";
import { World } from "./support/world.ts";

/** What a command prints with --json, whatever its exit status. */
// deno-lint-ignore no-explicit-any -- each test knows what it has asked for
async function printed(world: World, ...args: string[]): Promise<any> {
  const { stdout, stderr } = await world.run([...args, "--json"]);
  assert.notEqual(stdout, "", stderr);
  return JSON.parse(stdout);
}

/** QEMU's own word on whether the processors run. */
async function qemuStatus(socket: string): Promise<string> {
  const { QmpClient } = await import("../lib/qmp/client.ts");
  await using qemu = await QmpClient.connect(socket);
  return (await qemu.execute("query-status") as { status: string }).status;
}

Deno.test("a QEMU guest's whole life is served in the words of the command line", async () => {
  await using world = await World.create();
  const [disk, spare] = [await world.qcow2("a.qcow2"), await world.disk("b")];
  const { guest, socket } = await monitoredGuest(world, disk);
  await using agent = await Agent.start(world);
  const api = await ApiContract.of(agent);

  const list = await api.get("/v1/guests");
  assert.deepEqual([list.status, list.json], [200, await printed(world, "status")]);
  const [shown] = list.json.guests;
  assert.deepEqual([shown.name, shown.pid, shown.state, shown.locks.held], ["vm1", guest.pid, "running", 3]);
  for (const name of ["vm1", shown.uuid, shown.uuid.toUpperCase()]) {
    assert.deepEqual((await api.get(`/v1/guests/${name}`)).json, shown, name);
  }
  const locks = await api.get(`/v1/locks?disk=${encodeURIComponent(disk)}`);
  assert.deepEqual([locks.status, locks.json], [200, await printed(world, "inspect", disk)]);
  assert.equal(locks.json.holders[0].name, "vm1");
  const lease = await api.get(`/v1/locks?lease=guest:${shown.uuid}`);
  assert.deepEqual(lease.json, await printed(world, "inspect", `guest:${shown.uuid}`));
  const both = { disks: [{ path: disk }, { path: spare, access: "shared" }] };
  const check = await api.post("/v1/check", both);
  assert.deepEqual(
    [check.status, check.json],
    [200, await printed(world, "check", "--disk", disk, "--disk", `${spare},access=shared`)],
  );
  assert.deepEqual([check.json.granted, check.json.resources[0].holders[0].name], [false, "vm1"]);

  const words = { disks: [{ path: spare, format: "raw" }], leases: [{ lockspace: "ls", key: "k,1" }] };
  const flags = ["vm1", "--disk", spare, "--lease", "ls:k,,1"];
  for (const command of ["acquire", "release"]) {
    const done = await api.post(`/v1/guests/vm1/${command}`, words);
    const again = await api.post(`/v1/guests/vm1/${command}`, words);
    assert.deepEqual([done.status, again.status], [200, 200], done.body);
    assert.deepEqual(again.json, await printed(world, command, ...flags), "again: nothing to do");
    const opposite = command === "acquire" ? "release" : "acquire";
    await printed(world, opposite, ...flags);
    assert.deepEqual(done.json, await printed(world, command, ...flags), "as the command does it");
    const files = flockedFiles(guest.pid).length;
    assert.equal(files, command === "acquire" ? 12 : 6, "the kernel shows them in QEMU");
  }

  const paused = await api.post("/v1/guests/vm1/pause");
  assert.equal(await qemuStatus(socket), "paused");
  assert.deepEqual([paused.status, paused.json], [200, await printed(world, "pause", "vm1")]);
  assert.deepEqual([paused.json.guest.state, paused.json.givenUp], ["paused", []]);
  const resumed = await api.post("/v1/guests/vm1/resume", {});
  assert.equal(await qemuStatus(socket), "running");
  assert.deepEqual([resumed.status, resumed.json], [200, await printed(world, "resume", "vm1")]);
  const released = await api.post("/v1/guests/vm1/pause", { release: true });
  assert.deepEqual(released.json, await printed(world, "pause", "vm1", "--release"));
  assert.equal(released.json.givenUp.length, 2);
  assert.equal(flockedFiles(guest.pid).length, 2, "the lease on itself");
  assert.equal((await api.post("/v1/check", { disks: [{ path: disk }] })).json.granted, true);
  assert.equal((await api.post("/v1/guests/vm1/resume")).status, 200);
  assert.equal(flockedFiles(guest.pid).length, 6);

  for (const flags of [["--dry-run"], []]) {
    const reconciled = await api.post("/v1/guests/vm1/reconcile", flags.length > 0 ? { dryRun: true } : {});
    assert.equal(reconciled.status, 200, reconciled.body);
    assert.deepEqual(reconciled.json, await printed(world, "reconcile", "vm1", ...flags));
    assert.deepEqual([reconciled.json.source, reconciled.json.disks[0].result], ["qmp", "kept"]);
  }
  for (const path of ["/v1/guests/vm1/attach", "/v1/attach"]) {
    const attached = await api.post(path);
    assert.deepEqual([attached.status, attached.json], [200, await printed(world, "attach")], path);
  }
  const stopped = await api.post("/v1/guests/vm1/stop", { timeout: "20s", killAfter: "5s" });
  assert.equal(stopped.status, 200, stopped.body);
  assert.deepEqual({ ...stopped.json, tookMs: 0 }, {
    guest: { uuid: shown.uuid, name: "vm1", pid: guest.pid },
    outcome: "stopped",
    by: "quit",
    tookMs: 0,
    locks: { total: 3, held: false },
  });
  await guest.finished();
  assert.deepEqual((await api.post("/v1/guests/vm1/stop")).json, await printed(world, "stop", "vm1"));
  assert.deepEqual((await api.get("/v1/guests")).json, { guests: [] });
  assert.deepEqual((await agent.end()).code, 0);
});

Deno.test("names of guests and disks that need encoding are taken as they are", async () => {
  await using world = await World.create();
  const [name, lease] = ["vm ü+%2F 1?#&=..", 'k ü,%41+&=?#"'];
  const disk = await world.disk("a b,c%20ü&?#=+ .img");
  const args = ["--disk", disk.replaceAll(",", ",,"), "--lease", `ls:${lease.replaceAll(",", ",,")}`];
  await world.startRunning(["run", "--name", name, ...args, "--", "sleep", "60"]);
  const plain = new Deno.Command("sleep", { args: ["60"] }).spawn();
  try {
    await printed(world, "adopt", "--pid", `${plain.pid}`, "--name", "..");
    await using agent = await Agent.start(world);
    const api = await ApiContract.of(agent);
    const path = `/v1/guests/${encodeURIComponent(name)}`;
    const shown = await api.get(path);
    assert.deepEqual([shown.status, shown.json.name], [200, name]);
    assert.equal((await api.get("/v1/guests/%2e%2e")).json.pid, plain.pid, "a name like any other");
    const locks = await api.get(`/v1/locks?disk=${encodeURIComponent(disk)}`);
    assert.deepEqual(locks.json, await printed(world, "inspect", disk.replaceAll(",", ",,")));
    assert.deepEqual([locks.json.resource.name, locks.json.holders[0].name], [disk, name]);
    const leases = await api.get(`/v1/locks?lease=${encodeURIComponent(`ls:${lease}`)}`);
    assert.deepEqual([leases.json.resource.name, leases.json.holders[0].name], [`ls:${lease}`, name]);
    const body = { disks: [{ path: disk }], leases: [{ lockspace: "ls", key: lease }] };
    const held = await api.post(`${path}/acquire`, body);
    assert.deepEqual(held.json.resources.map(({ result }: { result: string }) => result), ["held", "held"]);

    for (const each of ["/v1/guests", path, "/healthz", "/openapi.json", "/metrics", "/v1/guests/nobody"]) {
      const [whole, head] = [await agent.get(each), await agent.ask({ method: "HEAD", path: each })];
      assert.deepEqual([head.status, head.body], [whole.status, ""], each);
      assert.equal(head.headers.get("content-type"), whole.headers.get("content-type"), each);
      if (each !== "/metrics") {
        assert.equal(head.headers.get("content-length"), String(new TextEncoder().encode(whole.body).length));
      }
    }
    using stream = await agent.connect();
    const events = await stream.ask({ method: "HEAD", path: "/v1/events" });
    assert.equal(events.headers.get("content-type"), "text/event-stream");
    assert.equal((await stream.ask({ path: "/healthz" })).status, 200, "the connection goes on");
  } finally {
    plain.kill("SIGKILL");
    await plain.status;
  }
});

Deno.test("a record that cannot be read is told beside the guests, and for its own UUID", async () => {
  await using world = await World.create();
  await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  await using agent = await Agent.start(world);
  const api = await ApiContract.of(agent);
  const uuid = "00000000-0000-4000-8000-000000000001";
  await Deno.writeTextFile(`${world.runtimeDir}/guests/${uuid}.json`, "{");
  const list = await api.get("/v1/guests");
  assert.deepEqual([list.status, list.json], [200, await printed(world, "status")]);
  assert.match(list.json.error.message, /cannot be read/);
  const one = await api.get(`/v1/guests/${uuid}`);
  assert.deepEqual([one.status, one.json], [422, await printed(world, "status", uuid)]);
});
