import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import { ApiContract } from "./support/api_contract.ts";
import { World } from "./support/world.ts";

Deno.test("who stands in the way is told as on the command line, and as an event", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  const holder = await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  await world.startRunning(["run", "--name", "vm2", "--disk", b, "--", "sleep", "60"]);
  await using agent = await Agent.start(world);
  const api = await ApiContract.of(agent);
  using events = await agent.events();

  const refused = await api.post("/v1/guests/vm2/acquire", { disks: [{ path: a }] });
  const { stdout } = await world.run(["acquire", "vm2", "--disk", a, "--json"]);
  assert.deepEqual([refused.status, refused.json], [409, JSON.parse(stdout)]);
  const { code, holder: told } = refused.json.error;
  assert.deepEqual([code, told.name, told.pid, told.alive], ["locked", "vm1", holder.pid, true]);
  const event = await events.next();
  assert.deepEqual([event.type, event.guest?.name, event.holder], ["lock-refused", "vm2", told]);
  assert.deepEqual(event.resources, [{ type: "disk", name: a, access: "exclusive" }]);

  assert.equal((await api.post("/v1/guests/vm1/pause", { release: true })).status, 200);
  const other = await world.startRunning(["run", "--name", "vm3", "--disk", a, "--", "sleep", "60"]);
  await events.until((each) => each.type === "guest-started" && each.guest?.name === "vm3");
  const inTheWay = await api.post("/v1/guests/vm1/resume");
  assert.deepEqual([inTheWay.status, inTheWay.json.error.holder.name], [409, "vm3"]);
  assert.equal((await events.until("lock-refused")).holder?.pid, other.pid);
  await other.kill();
  const changed = await api.post("/v1/guests/vm1/resume");
  const command = await world.run(["resume", "vm1", "--json"]);
  assert.deepEqual([changed.status, changed.json], [409, JSON.parse(command.stdout)]);
  const since = await events.until("lock-refused");
  assert.deepEqual([since.holder?.name, since.guest?.name], ["vm3", "vm1"]);
  assert.equal((await api.post("/v1/guests/vm1/resume", { acceptChanges: true })).status, 200);
});

Deno.test("what is not there, not allowed or not understood has its status, and an error in JSON", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  await using agent = await Agent.start(world);
  const api = await ApiContract.of(agent);
  const acquire = "/v1/guests/vm1/acquire";
  const disks = (...paths: unknown[]) => ({ disks: paths.map((path) => ({ path })) });
  const many = disks(...Array.from({ length: 1001 }, (_, at) => `/d${at}`));
  const cases: [method: string, path: string, body: unknown, status: number, says: RegExp][] = [
    ["GET", "/v1/guests/nobody", undefined, 404, /no guest "nobody" runs on this host/],
    ["GET", "/v1/guests/00000000-0000-4000-8000-000000000001", undefined, 404, /no guest "0000/],
    ["POST", "/v1/guests/nobody/acquire", disks(disk), 404, /no guest "nobody"/],
    ["POST", "/v1/guests/nobody/release", disks(disk), 404, /no guest "nobody"/],
    ["POST", "/v1/guests/nobody/pause", {}, 404, /no guest "nobody"/],
    ["POST", "/v1/guests/nobody/resume", {}, 404, /no guest "nobody"/],
    ["POST", "/v1/guests/nobody/stop", {}, 404, /no guest "nobody"/],
    ["POST", "/v1/guests/nobody/attach", {}, 404, /no guest "nobody"/],
    ["POST", "/v1/guests/nobody/reconcile", {}, 404, /no guest "nobody"/],
    ["POST", "/v1/guests/vm1/reconcile", { dryRun: 1 }, 422, /body\.dryRun: /],
    ["POST", "/v1/guests/vm1/reconcile", {}, 422, /guest "vm1" is no QEMU/],
    ["GET", "/", undefined, 404, /nothing at \/;/],
    ["GET", "/v2/guests", undefined, 404, /nothing at \/v2\/guests; see: GET \/openapi\.json/],
    ["GET", "/v1/guests/", undefined, 404, /nothing at/],
    ["GET", "/v1/guests/vm1/", undefined, 404, /nothing at/],
    ["GET", "/v1/guests/vm1/nothing", undefined, 404, /nothing at/],
    ["GET", "/healthz/", undefined, 404, /nothing at/],
    ["POST", "/v1/guests", {}, 405, /POST is nothing that \/v1\/guests knows/],
    ["POST", "/v1/guests/vm1", {}, 405, /POST/],
    ["DELETE", "/v1/guests/vm1", undefined, 405, /DELETE/],
    ["GET", acquire, undefined, 405, /GET/],
    ["get", "/v1/guests", undefined, 405, /get is nothing/],
    ["POST", "/healthz", {}, 405, /POST/],
    ["PUT", "/v1/events", {}, 405, /PUT/],
    ["POST", acquire, disks("a"), 422, /disk "a": the agent needs an absolute path, or a URI/],
    ["POST", acquire, disks("./a"), 422, /absolute path/],
    ["POST", acquire, disks("file:a"), 422, /absolute path/],
    ["POST", acquire, disks("host_device:a"), 422, /absolute path/],
    ["POST", acquire, disks("a:b"), 422, /absolute path/],
    ["POST", acquire, disks("FILE:/a"), 422, /absolute path/],
    ["POST", acquire, disks("json:{}"), 422, /json: form/],
    ["POST", acquire, disks("smb://server/share"), 422, /scheme "smb" is not understood/],
    ["POST", acquire, disks(`${world.directory}/absent`), 422, /absent/],
    ["POST", acquire, disks(world.directory), 422, /is a directory/],
    ["POST", acquire, disks(disk, 7), 422, /body\.disks\.1\.path: /],
    ["POST", acquire, many, 422, /body\.disks: /],
    ["POST", acquire, {}, 422, /body: names no disk and no lease/],
    ["POST", acquire, { disks: [], leases: [] }, 422, /names no disk and no lease/],
    ["POST", acquire, { disks: [{ path: disk, access: "some" }] }, 422, /body\.disks\.0\.access: /],
    ["POST", acquire, { ...disks(disk), force: true }, 422, /body: .*"force"/],
    ["POST", acquire, { leases: [{ lockspace: "a/b", key: "k" }] }, 422, /lockspace "a\/b" must be/],
    ["POST", acquire, { leases: [{ lockspace: "ls", key: "a\u0007b" }] }, 422, /control characters/],
    ["POST", acquire, disks(disk + "\u0000"), 422, /./],
    ["POST", `${acquire}?force=1`, disks(disk), 422, /query: .*"force"/],
    ["POST", "/v1/guests/vm1/pause", { release: "yes" }, 422, /body\.release: /],
    ["POST", "/v1/guests/vm1/stop", { timeout: "soon" }, 422, /body\.timeout: /],
    ["POST", "/v1/guests/vm1/stop", { timeout: "" }, 422, /body\.timeout: /],
    ["POST", "/v1/guests/vm1/stop", { killAfter: -1 }, 422, /body\.killAfter: /],
    ["POST", "/v1/attach", { all: true }, 422, /"all"/],
    ["POST", "/v1/check", [], 422, /body: /],
    ["POST", "/v1/check", "null", 422, /body: /],
    ["POST", "/v1/check", "{", 400, /the body is not JSON/],
    ["GET", "/v1/locks", undefined, 422, /query: names one disk or one lease/],
    ["GET", "/v1/locks?disk=/a&lease=a:b", undefined, 422, /query: names one/],
    ["GET", "/v1/locks?disk=/a&disk=/b", undefined, 422, /query: "disk" is given twice/],
    ["GET", "/v1/locks?disk=a", undefined, 422, /absolute path/],
    ["GET", "/v1/locks?disk=", undefined, 422, /query\.disk: /],
    ["GET", "/v1/locks?lease=nocolon", undefined, 422, /has no colon/],
    ["GET", "/v1/guests?all=1", undefined, 422, /query: .*"all"/],
    ["GET", "/v1/events?last=many", undefined, 422, /query\.last: /],
    ["GET", "/v1/events?last=-1", undefined, 422, /query\.last: /],
  ];
  const before = await world.run(["status", "--json"]);
  for (const [method, path, body, status, says] of cases) {
    const answer = await api.ask({ method, path, body });
    const label = `${method} ${path} ${JSON.stringify(body)?.slice(0, 80)}: ${answer.body}`;
    assert.equal(answer.status, status, label);
    assert.match(answer.json.error.message, says, label);
    assert.doesNotMatch(answer.json.error.message, /\p{Cc}/u, label);
    if (status === 405) assert.ok(!answer.headers.get("allow")!.split(", ").includes(method), label);
  }
  assert.equal((await world.run(["status", "--json"])).stdout, before.stdout, "nothing has changed");

  const allowed = async (path: string) => (await agent.ask({ method: "PATCH", path })).headers.get("allow");
  assert.equal(await allowed("/v1/guests"), "GET, HEAD");
  assert.equal(await allowed("/v1/events"), "GET, HEAD");
  assert.equal(await allowed(acquire), "POST");
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""]) {
    const answer = await api.ask({
      method: "POST",
      path: acquire,
      body: {},
      headers: { "content-type": type },
    });
    assert.deepEqual([answer.status, answer.json.error.code], [415, "usage"], type);
  }
  const json = { "content-type": "Application/JSON ; charset=utf-8" };
  const accepted = await api.ask({ method: "POST", path: "/v1/check", body: disks(disk), headers: json });
  assert.equal(accepted.status, 200);

  await guest.kill();
  for (const command of ["pause", "resume", "acquire", "release"]) {
    const body = /acquire|release/.test(command) ? disks(disk) : {};
    assert.equal((await api.post(`/v1/guests/vm1/${command}`, body)).status, 404, `${command}: it has ended`);
  }
  const gone = await api.post("/v1/guests/vm1/stop");
  assert.deepEqual([gone.status, gone.json.outcome], [200, "already-stopped"]);
});
