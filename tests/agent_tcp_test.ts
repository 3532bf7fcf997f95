import assert from "node:assert/strict";
import { ROUTES } from "../lib/agent/api/routes.ts";
import { Agent } from "./support/agent.ts";
import { ask } from "./support/agent_client.ts";
import { World } from "./support/world.ts";

Deno.test("over TCP everything can be read, and nothing be changed", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  await using agent = await Agent.start(world, ["--listen", "127.0.0.1:0"]);
  const tcp = await agent.tcp();
  for (
    const path of ["/v1/guests", "/v1/guests/vm1", `/v1/locks?disk=${disk}`, "/openapi.json", "/healthz"]
  ) {
    const [there, here] = [await ask(tcp, { path }), await agent.get(path)];
    assert.deepEqual([there.status, there.body], [200, here.body], path);
  }
  const page = await ask(tcp, { path: "/" });
  assert.deepEqual([page.status, page.headers.get("content-type")?.split(";")[0]], [200, "text/html"]);
  for (const { method, path } of ROUTES.filter((route) => route.method === "POST")) {
    const there = path.replace("{guest}", "vm1");
    const body = { disks: [{ path: disk }] };
    const answer = await ask(tcp, { method, path: there, body });
    assert.deepEqual([answer.status, answer.json.error.code], [403, "permission"], path);
    assert.match(answer.json.error.message, /is answered over the unix socket only/);
    const other = await ask(tcp, { path: there });
    assert.deepEqual([other.status, other.headers.get("allow")], [405, "POST"]);
  }
  for (const method of ["PUT", "DELETE", "PATCH", "OPTIONS"]) {
    assert.equal((await ask(tcp, { method, path: "/v1/guests/vm1" })).status, 405, method);
  }
  assert.equal((await agent.get("/v1/guests/vm1")).json.state, "running");
});

Deno.test("over TCP the agent answers to its own names only", async () => {
  await using world = await World.create();
  await using agent = await Agent.start(world, ["--listen", "127.0.0.1:0"]);
  const tcp = await agent.tcp();
  for (const host of ["localhost", "LOCALHOST:1", "127.0.0.1", `127.0.0.1:${tcp.port}`, "[::1]:80"]) {
    assert.equal((await ask(tcp, { path: "/v1/guests", headers: { host } })).status, 200, host);
  }
  for (const host of ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:80", "localhost.", ""]) {
    for (const path of ["/v1/guests", "/", "/healthz", "/metrics", "/v1/events", "/nothing"]) {
      const answer = await ask(tcp, { path, headers: { host } });
      assert.deepEqual([answer.status, answer.json.error.code], [421, "permission"], `${host} ${path}`);
    }
  }
  const absolute = await ask(tcp, { path: "http://evil.example/v1/guests", headers: { host: "localhost" } });
  assert.equal(absolute.status, 421, "the target's host counts");
  assert.equal((await agent.ask({ path: "/healthz", headers: { host: "anything" } })).status, 200);
});

Deno.test("an address that other hosts reach has to be meant", async () => {
  await using world = await World.create();
  for (const address of ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "host.example:80", "127.0.0.1.example:80"]) {
    const { code, stderr } = await Agent.refused(world, ["--listen", address]);
    assert.equal(code, 64, stderr);
    assert.match(
      stderr,
      /^lockvisor: --listen is ".*"; it must be an address of this host's loopback .*add --listen-anywhere/,
    );
  }
  for (
    const address of ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "::1:80", ":80", "http://localhost:80"]
  ) {
    const { code, stderr } = await Agent.refused(world, ["--listen", address]);
    assert.equal(code, 64, stderr);
    assert.match(stderr, /it must be ADDRESS:PORT/, address);
  }
  await Deno.writeTextFile(world.configFile, '[agent]\nlisten = "0.0.0.0:0"\n');
  assert.equal((await Agent.refused(world, [])).code, 78);
  await using agent = await Agent.start(world, ["--listen-anywhere"]);
  assert.equal(
    (await ask({ ...await agent.tcp(), hostname: "127.0.0.1" }, { path: "/healthz" })).status,
    200,
  );
});

Deno.test("an address, a socket or a host that has its agent already is refused to another", async () => {
  await using world = await World.create();
  await using other = await World.create();
  const socket = `${world.runtimeDir}/lockvisor.sock`;
  await using agent = await Agent.start(world, ["--listen", "127.0.0.1:0"]);
  const { port } = await agent.tcp();
  const used = await Agent.refused(other, ["--listen", `127.0.0.1:${port}`]);
  assert.equal(used.code, 69, used.stderr);
  assert.match(used.stderr, new RegExp(`lockvisor: cannot listen on 127\\.0\\.0\\.1:${port}: .*in use`, "i"));
  assert.deepEqual(
    Array.from(Deno.readDirSync(other.runtimeDir), ({ name }) => name).filter((name) => /sock/.test(name)),
    [],
  );
  const second = await Agent.refused(world, []);
  assert.deepEqual([second.code, /another agent watches/.test(second.stderr)], [69, true], second.stderr);
  const listening = await Agent.refused(other, ["--socket", socket]);
  assert.deepEqual(
    [listening.code, /somebody listens on/.test(listening.stderr)],
    [69, true],
    listening.stderr,
  );
  await Deno.writeTextFile(`${other.directory}/file`, "mine");
  const file = await Agent.refused(other, ["--socket", `${other.directory}/file`]);
  assert.deepEqual([file.code, /is no socket/.test(file.stderr)], [65, true], file.stderr);
  assert.equal(await Deno.readTextFile(`${other.directory}/file`), "mine");
  assert.equal((await agent.get("/healthz")).status, 200, "the first one goes on");

  agent.kill("SIGKILL");
  await agent.finished();
  assert.ok(Deno.lstatSync(socket).isSocket, "what a kill leaves");
  await using successor = await Agent.start(world);
  assert.equal((await successor.get("/healthz")).status, 200);
  await successor.end();
  assert.throws(() => Deno.lstatSync(socket), Deno.errors.NotFound);
});
