import assert from "node:assert/strict";
import { judgeBreak, type KeyFacts, type NotedHolder } from "../lib/lockspace/break_plan.ts";
import { lockFiles } from "./support/kernel.ts";
import { assertRefused } from "./support/refused.ts";
import { BINARY, World } from "./support/world.ts";

function holder(hostId: string, life: NotedHolder["life"]): NotedHolder {
  const guest = { uuid: "00000000-0000-5000-8000-000000000001", name: "vm1" };
  return { guest, host: { id: hostId, name: `name-${hostId}` }, pid: 7, since: "2026-01-01T00:00:00Z", life };
}

Deno.test("what may be broken", () => {
  const unseen: KeyFacts = { state: "exclusive", pids: [], holders: [], damaged: [] };
  const shown: KeyFacts = { ...unseen, pids: [4711] };
  const cases: [KeyFacts, NotedHolder[], string[], string][] = [
    [{ ...unseen, state: "free" }, [holder("hv2", "unknown")], ["hv2"], "free"],
    [shown, [], [], "held-here"],
    [shown, [holder("hv2", "unknown")], ["hv2"], "held-here"],
    [unseen, [holder("hv1", "alive")], ["hv1"], "held-here"],
    [unseen, [holder("hv1", "unknown")], ["hv1"], "held-here"],
    [unseen, [holder("hv1", "dead")], ["hv1"], "nameless"],
    [unseen, [], ["hv2"], "nameless"],
    [unseen, [holder("hv2", "unknown")], [], "host-not-fenced"],
    [unseen, [holder("hv2", "unknown")], ["hv3"], "host-not-fenced"],
    [unseen, [holder("hv2", "unknown"), holder("hv3", "unknown")], ["hv2"], "host-not-fenced"],
    [unseen, [holder("hv2", "unknown"), holder("hv1", "alive")], ["hv2"], "held-here"],
    [unseen, [holder("hv2", "unknown")], ["hv2"], "breakable"],
    [{ ...unseen, damaged: ["note"] }, [holder("hv2", "unknown")], ["hv2"], "unreadable"],
    [{ ...shown, damaged: ["note"] }, [], [], "held-here"],
    [unseen, [holder("hv2", "unknown")], ["name-hv2"], "breakable"],
    [
      { ...unseen, state: "shared" },
      [holder("hv2", "unknown"), holder("hv3", "unknown")],
      ["hv2", "hv3"],
      "breakable",
    ],
  ];
  for (const [facts, holders, fenced, kind] of cases) {
    assert.equal(
      judgeBreak({ ...facts, holders }, { hostId: "hv1", fenced }).kind,
      kind,
      JSON.stringify(holders),
    );
  }
});

Deno.test("what this host holds is never broken, and nothing is changed by the attempt", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  for (const target of [disk, "vm1"]) {
    await assertRefused(world, ["break", target, "--reason", "test", "--host-is-fenced", world.hostId], {
      code: 75,
      says: new RegExp(`is held on this host by guest "vm1" \\(pid ${guest.pid} on .*never broken`),
    });
  }
  await assertRefused(world, ["break", disk], { code: 64, says: /say why; add --reason/ });
  await assertRefused(world, ["break", "vm9", "--reason", "x"], { code: 65, says: /"vm9" is no guest/ });
  await guest.kill();
  const free = await world.run(["break", disk, "--reason", "test"]);
  assert.deepEqual([free.code, free.stdout], [0, `nobody holds ${disk}; there is nothing to break\n`]);
});

Deno.test("the lock of a fenced host is broken with an audit line; that of a host not named is not", async () => {
  await using there = await World.create({ hostId: "hv-dead" });
  await using here = await World.create({ hostId: "hv-alive", lockspace: there.lockspace });
  const disk = await there.disk("a");
  const storage = { LOCKVISOR_STORAGE: `san1=${there.directory}` };
  await there.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"], { env: storage });
  const before = lockFiles(there.lockspace).map((name) => Deno.lstatSync(`${there.lockspace}/${name}`).ino);
  // In a pid namespace of its own this kernel shows none of the guest's locks: as from another host.
  const elsewhere = (...args: string[]) =>
    here.execute("unshare", ["--fork", "--pid", "--mount-proc", BINARY, ...args], { env: storage });

  const refused = await elsewhere("break", disk, "--reason", "test");
  assert.equal(refused.code, 75, refused.stderr);
  assert.match(
    refused.stderr,
    /is held by guest "vm1" \(pid \d+ on .*; if that host is switched off .* --host-is-fenced /,
  );
  const wrong = await elsewhere("break", disk, "--reason", "test", "--host-is-fenced", "hv-other");
  assert.equal(wrong.code, 75);
  assert.equal((await elsewhere("run", "--name", "vm2", "--disk", disk, "--", "true")).code, 75);

  const generation = async (): Promise<number> =>
    JSON.parse((await here.run(["inspect", "--json", disk], { env: storage })).stdout).generation;
  const counted = await generation();
  const { resource } = JSON.parse((await here.run(["inspect", "--json", disk], { env: storage })).stdout);
  const { key } = resource.identities.find(({ text }: { text: string }) => text.startsWith("storage:"));
  const state = `${there.lockspace}/${key}.d/state.json`;
  const intact = await Deno.readTextFile(state);
  await Deno.writeTextFile(state, "{");
  const damaged = await elsewhere("break", disk, "--reason", "test", "--host-is-fenced", "hv-dead");
  assert.equal(damaged.code, 65, damaged.stderr);
  assert.ok(
    before.includes(Deno.lstatSync(`${there.lockspace}/${key}.a`).ino),
    "its lock files are as they were",
  );
  await Deno.writeTextFile(state, intact);
  const dead = await elsewhere("inspect", "--json", disk);
  assert.equal(JSON.parse(dead.stdout).locked, true);
  const broken = await elsewhere(
    "break",
    "vm1",
    "--reason",
    "power was cut",
    "--host-is-fenced",
    "hv-dead",
    "--json",
  );
  assert.equal(broken.code, 0, broken.stderr);
  const after = lockFiles(there.lockspace).map((name) => Deno.lstatSync(`${there.lockspace}/${name}`).ino);
  assert.equal(after.filter((inode) => before.includes(inode)).length, 0, "no name leads to the old files");
  const log = (await Deno.readTextFile(`${there.lockspace}/audit.log`)).trim().split("\n").map((line) =>
    JSON.parse(line)
  );
  assert.equal(log.length, 1);
  assert.deepEqual([log[0].reason, log[0].fenced, log[0].holders[0].guest, log[0].keys], [
    "power was cut",
    ["hv-dead"],
    "vm1",
    JSON.parse(broken.stdout).broken,
  ]);
  const started = await elsewhere("run", "--name", "vm2", "--disk", disk, "--", "true");
  assert.equal(started.code, 0, started.stderr);
  assert.equal(await generation(), counted + 2, "once by the break, once by the new guest");
});
