import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { canLock, flockedFiles } from "./support/kernel.ts";
import { everything } from "./support/refused.ts";
import { until } from "./support/until.ts";
import { BINARY, World } from "./support/world.ts";

const UUID = "a1111111-2222-4333-8444-555555555555";
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;

interface StatusGuest {
  name: string;
  pid: number;
  state: string;
  since: string;
  resources: { name: string; keys: string[]; locked: boolean | null }[];
}

async function guestsOf(world: World): Promise<StatusGuest[]> {
  const { code, stdout, stderr } = await world.run(["status", "--json"]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout).guests;
}

interface Inspected {
  resource: { type: string; name: string; identities: { text: string; key: string }[] };
  locked: boolean | null;
  generation: number | null;
  holders: { uuid: string | null; name: string | null; pid: number; host: string; alive: boolean | null }[];
}

async function inspect(world: World, resource: string): Promise<Inspected> {
  const { code, stdout, stderr } = await world.run(["inspect", "--json", resource]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

/** The files with guests' records. */
function recordFiles(world: World): string[] {
  return Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`), ({ name }) => name)
    .filter((name) => name.endsWith(".json")).map((name) => `${world.runtimeDir}/guests/${name}`);
}

// deno-lint-ignore no-explicit-any -- a record as it stands in its file, to be bent
async function editRecord(file: string, edit: (record: any) => void): Promise<void> {
  const record = JSON.parse(await Deno.readTextFile(file));
  edit(record);
  await Deno.writeTextFile(file, JSON.stringify(record));
}

Deno.test("status --json has the documented fields, and no others", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  const guest = await world.startRunning(
    [["run", "--name", "vm1", "--uuid", UUID.toUpperCase(), "--id", "7"], [
      ...["--disk", a, "--disk", `${b},access=readonly`, "--lease", "cluster:db,access=shared"],
      ...["--", "sleep", "60"],
    ]].flat(),
  );
  const { stdout } = await world.run(["status", "--json"]);
  const whole = JSON.parse(stdout);
  const [shown] = whole.guests;
  const sha256 = /^[0-9a-f]{64}$/;
  const keys = shown.resources.map((resource: { keys: string[] }) => resource.keys);
  assert.deepEqual(keys.map((some: string[]) => some.length), [2, 2, 1], "path and inode; one for a lease");
  for (const key of keys.flat()) assert.match(key, sha256);
  assert.match(shown.since, TIME);
  assert.deepEqual(whole, {
    guests: [{
      uuid: UUID,
      name: "vm1",
      id: "7",
      state: "running",
      plugin: "sync-manager",
      pid: guest.pid,
      since: shown.since,
      resources: [
        { type: "disk", name: a, access: "exclusive", keys: keys[0], locked: true },
        { type: "disk", name: b, access: "readonly", keys: keys[1], locked: true },
        { type: "lease", name: "cluster:db", access: "shared", keys: keys[2], locked: true },
      ],
      locks: { held: 6, unknown: 0, lost: 0, total: 6 },
    }],
  });
  assert.deepEqual(Object.keys(shown), [
    "uuid",
    "name",
    "id",
    "state",
    "plugin",
    "pid",
    "since",
    "resources",
    "locks",
  ]);
  assert.deepEqual(Object.keys(shown.resources[0]), ["type", "name", "access", "keys", "locked"]);
});

Deno.test("status shows a lock that is lost as the kernel has it, not as the record says", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  // The guest itself closes the second slot of every key.
  const script =
    `for fd in /proc/$$/fd/*; do case $(readlink $fd) in */lockspace/*.b) eval "exec \${fd##*/}>&-";; esac; done
    : > closed; exec sleep 60`;
  const guest = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--disk",
    disk,
    "--",
    "bash",
    "-c",
    script,
  ]);
  await until("the slots are closed", () => existsSync(`${world.directory}/closed`));
  assert.equal(flockedFiles(guest.pid).length, 3);
  const [shown] = await guestsOf(world);
  assert.equal(shown!.resources[0]!.locked, false);
  assert.match((await world.run(["status"])).stdout, /^vm1 .* 0\/3 /m);
});

Deno.test("nop records a guest and locks nothing", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const start = (
    name: string,
  ) => ["run", "--plugin", "nop", "--name", name, "--disk", disk, "--", "sleep", "60"];
  const first = await world.startRunning(start("vm1"));
  await world.startRunning(start("vm2"));
  assert.deepEqual(flockedFiles(first.pid), []);
  const guests = await guestsOf(world);
  assert.deepEqual(
    guests.map(({ name, resources }) => [name, resources[0]!.keys, resources[0]!.locked]).sort(),
    [
      ["vm1", [], false],
      ["vm2", [], false],
    ],
  );
  const twice = await world.run(["run", "--plugin", "nop", "--name", "vm1", "--", "true"]);
  assert.equal(twice.code, 75, "the record keeps a second vm1 away");
  await first.kill();
  assert.deepEqual((await guestsOf(world)).map(({ name }) => name), ["vm2"]);
});

/** Columns that a text takes: the wide characters of this test take two. */
function columns(text: string): number {
  return [...text].reduce((sum, character) => sum + (character >= "\u3000" ? 2 : 1), 0);
}

Deno.test("the table of guests is aligned, and without escapes when it goes to no terminal", async () => {
  await using world = await World.create();
  assert.equal((await world.run(["status"])).stdout, "no guests\n");
  const disk = await world.disk("a");
  const names = ["v", "a-long-name-of-a-guest", "データ"];
  for (const name of names) await world.startRunning(["run", "--name", name, "--", "sleep", "60"]);
  await world.startRunning(["run", "--name", "d", "--disk", disk, "--", "sleep", "60"]);
  const { stdout, stderr, code } = await world.run(["status"]);
  assert.deepEqual([code, stderr], [0, ""]);
  const [header, ...rows] = stdout.trimEnd().split("\n");
  assert.match(header!, /^NAME +STATE +PID +SINCE +LOCKS +DISKS$/);
  assert.equal(rows.length, 4);
  const stateColumn = columns(header!.slice(0, header!.indexOf("STATE")));
  for (const row of rows) {
    assert.equal(columns(row.slice(0, row.indexOf("running"))), stateColumn, row);
    assert.match(row, /^\S+ +running +\d+ +\d{4}-\S+Z +(1\/1 +-|3\/3 +\/\S+\/a)$/, "no spaces at the end");
  }
  assert.ok(!stdout.includes("\u001b"));
});

Deno.test("colours appear on a terminal only, and not with NO_COLOR", async () => {
  await using world = await World.create();
  await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  const onTerminal = (env: Record<string, string>) =>
    world.execute("script", ["-qec", `'${BINARY}' status`, "/dev/null"], { env: { TERM: "xterm", ...env } });
  const coloured = await onTerminal({});
  assert.ok(coloured.stdout.includes("\u001b[32mrunning\u001b[0m"), JSON.stringify(coloured.stdout));
  const plain = await onTerminal({ NO_COLOR: "1" });
  assert.ok(!plain.stdout.includes("\u001b["), JSON.stringify(plain.stdout));
  const stripped = coloured.stdout.replaceAll(/\p{Cc}\[\d+m/gu, "");
  assert.equal(stripped, plain.stdout, "colours change nothing but colours");
});

Deno.test("a guest is found by name and by UUID in either case, until it ends", async () => {
  await using world = await World.create();
  await world.startRunning(["run", "--name", "other", "--", "sleep", "60"]);
  const guest = await world.startRunning(["run", "--name", "vm1", "--uuid", UUID, "--", "sleep", "60"]);
  for (const name of ["vm1", UUID, UUID.toUpperCase()]) {
    const { code, stdout } = await world.run(["status", name, "--json"]);
    assert.equal(code, 0, name);
    assert.deepEqual(JSON.parse(stdout).guests.map(({ pid }: { pid: number }) => pid), [guest.pid]);
    const table = (await world.run(["status", name])).stdout.trimEnd().split("\n");
    assert.equal(table.length, 2, "a header and one guest");
  }
  await guest.kill();
  assert.equal((await world.run(["status", "vm1"])).code, 65);
});

/** What makes a record a ghost's: the guest has ended, and its pid may be somebody else's by now. */
const GHOSTS: { kind: string; edit(carrier: Record<string, unknown>, living: Living): void }[] = [
  { kind: "whose pid is nobody's", edit: () => {} },
  { kind: "whose pid is another process's now", edit: (carrier, { pid }) => carrier.pid = pid },
  {
    kind: "of an earlier boot, whose pid and start time are a living process's",
    edit: (carrier, { pid, startTime }) => {
      Object.assign(carrier, { pid, startTime, bootId: "00000000-1111-4222-8333-444444444444" });
    },
  },
];

interface Living {
  pid: number;
  startTime: string;
}

for (const { kind, edit } of GHOSTS) {
  Deno.test(`a record ${kind} is pruned and never shown`, async () => {
    await using world = await World.create();
    const guest = await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
    const bystander = await world.startRunning(["run", "--name", "bystander", "--", "sleep", "60"]);
    const records = recordFiles(world);
    const file = records.find((name) => Deno.readTextFileSync(name).includes(`"name":"vm1"`))!;
    await guest.kill();
    const startTime = Deno.readTextFileSync(`/proc/${bystander.pid}/stat`).split(" ")[21]!;
    await editRecord(file, ({ carriers: [carrier] }) => edit(carrier, { pid: bystander.pid, startTime }));
    assert.deepEqual((await guestsOf(world)).map(({ name }) => name), ["bystander"]);
    assert.deepEqual(recordFiles(world), records.filter((name) => name !== file));
    await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  });
}

Deno.test("a ghost's record does not keep its name from a new guest", async () => {
  await using world = await World.create();
  const first = await world.startRunning(["run", "--name", "vm1", "--uuid", UUID, "--", "sleep", "60"]);
  await first.kill();
  assert.equal(recordFiles(world).length, 1, "nobody has looked yet");
  const second = await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  assert.deepEqual((await guestsOf(world)).map(({ name, pid }) => [name, pid]), [["vm1", second.pid]]);
});

Deno.test("a zombie is dead", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  // The guest's parent becomes a sleep that never waits for its children.
  const script = `"$0" run --name vm1 --disk "$1" -- sleep 60 & echo $!; exec sleep 60`;
  const parent = new Deno.Command("sh", {
    args: ["-c", script, BINARY, disk],
    env: world.environment,
    clearEnv: true,
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  let pid: number | undefined;
  try {
    const reader = parent.stdout.getReader();
    pid = Number(new TextDecoder().decode((await reader.read()).value));
    await until("the guest runs", () => Deno.readTextFileSync(`/proc/${pid}/comm`) === "sleep\n");
    assert.equal((await guestsOf(world)).length, 1);
    Deno.kill(pid, "SIGKILL");
    await until("it is a zombie", () => /\) Z /.test(Deno.readTextFileSync(`/proc/${pid}/stat`)));
    assert.deepEqual(await guestsOf(world), []);
    assert.deepEqual(recordFiles(world), []);
    assert.equal((await inspect(world, disk)).locked, false);
    await reader.cancel();
  } finally {
    if (pid !== undefined) killIfThere(pid);
    parent.kill("SIGKILL");
    await parent.status;
  }
});

function killIfThere(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch { /* it has ended */ }
}

Deno.test("a guest that forked and left its locks to a child is not forgotten", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const script = `sleep 60 > /dev/null 2>&1 & echo $! > child`;
  const guest = world.start(["run", "--name", "vm1", "--disk", disk, "--", "sh", "-c", script]);
  assert.equal((await guest.finished()).code, 0);
  const child = Number(await Deno.readTextFile(`${world.directory}/child`));
  try {
    assert.deepEqual((await guestsOf(world)).map(({ name }) => name), ["vm1"]);
    const { locked, holders } = await inspect(world, disk);
    assert.equal(locked, true);
    assert.deepEqual(holders.map(({ pid, alive }) => [pid, alive]), [[guest.pid, false]]);
    assert.equal((await world.run(["check", "--disk", disk])).code, 1);
  } finally {
    killIfThere(child);
  }
  await until("the child has ended", async () => (await world.run(["check", "--disk", disk])).code === 0);
  assert.deepEqual(await guestsOf(world), []);
});

Deno.test("inspect --json has the documented fields, and no others", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const free = await inspect(world, disk);
  const [path, inode] = [`path:testhost:${disk}`, `inode:testhost:`];
  assert.deepEqual(free, {
    resource: { type: "disk", name: disk, identities: free.resource.identities },
    locked: false,
    generation: null,
    holders: [],
  });
  const texts = free.resource.identities.map(({ text }) => text);
  assert.ok(texts.includes(path) && texts.some((text) => text.startsWith(inode)), texts.join());
  for (const identity of free.resource.identities) {
    assert.deepEqual(Object.keys(identity), ["text", "key"]);
    assert.equal(identity.key, await sha256(identity.text));
  }

  const guest = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--uuid",
    UUID,
    "--disk",
    disk,
    "--",
    "sleep",
    "60",
  ]);
  const held = await inspect(world, disk);
  const since = (held.holders[0] as unknown as { since: string }).since;
  assert.match(since, TIME);
  const holder = {
    uuid: UUID,
    name: "vm1",
    pid: guest.pid,
    host: Deno.hostname(),
    access: "exclusive",
    since,
    alive: true,
  };
  assert.deepEqual(held, { ...free, locked: true, generation: 1, holders: [holder] });
  assert.deepEqual(Object.keys(held), ["resource", "locked", "generation", "holders"]);
  assert.deepEqual(Object.keys(held.holders[0]!), Object.keys(holder));
  const lease = await inspect(world, `guest:${UUID}`);
  assert.deepEqual(lease.holders, [holder], "every guest has a lease on itself");
  assert.equal(lease.resource.type, "lease");
});

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

Deno.test("inspect does not know whether a holder on another host lives", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const { resource } = await inspect(world, disk);
  for (const { key } of resource.identities) {
    const directory = `${world.lockspace}/${key}.d`;
    for (
      const { name } of [...Deno.readDirSync(directory)].filter(({ name }) => name.startsWith("testhost."))
    ) {
      const note = JSON.parse(await Deno.readTextFile(`${directory}/${name}`));
      note.host = { id: "otherhost", name: "hv9" };
      await Deno.remove(`${directory}/${name}`);
      await Deno.writeTextFile(`${directory}/${name.replace("testhost", "otherhost")}`, JSON.stringify(note));
    }
  }
  const { locked, holders } = await inspect(world, disk);
  assert.equal(locked, true);
  assert.deepEqual(holders.map(({ name, host, alive }) => [name, host, alive]), [["vm1", "hv9", null]]);
  assert.match((await world.run(["inspect", disk])).stdout, /on hv9, .*not known from here whether it lives/);
  const refused = await world.run(["run", "--name", "vm2", "--disk", disk, "--", "true"]);
  assert.equal(refused.code, 75);
  assert.match(refused.stderr, new RegExp(`locked by guest "vm1" \\(pid ${guest.pid} on hv9, exclusive`));
});

Deno.test("the generation grows by one with each exclusive grant, and with no other", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const generationAfter = async (option: string, code: number) => {
    assert.equal((await world.run(["run", "--name", "vm1", "--disk", option, "--", "true"])).code, code);
    return (await inspect(world, disk)).generation;
  };
  assert.equal(await generationAfter(`${disk},access=readonly`, 0), null, "never held exclusively");
  assert.equal(await generationAfter(disk, 0), 1);
  assert.equal(await generationAfter(disk, 0), 2);
  assert.equal(await generationAfter(`${disk},access=shared`, 0), 2);
  assert.equal(await generationAfter(`${disk},access=readonly`, 0), 2);
  const guest = await world.startRunning(["run", "--name", "vm2", "--disk", disk, "--", "sleep", "60"]);
  assert.equal(await generationAfter(disk, 75), 3, "refused beside vm2, whose grant was the third");
  await guest.kill();
  assert.equal(await generationAfter(disk, 0), 4);
});

Deno.test("a stray process on a lock file is named by its pid", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.run(["run", "--name", "vm1", "--disk", disk, "--", "true"]);
  const { resource } = await inspect(world, disk);
  for (const slot of ["a", "b"]) {
    const file = `${world.lockspace}/${resource.identities[0]!.key}.${slot}`;
    // Not -n: to look whether it has the lock is to have it for an instant.
    const stray = new Deno.Command("flock", { args: [file, "sleep", "60"], stdin: "null" }).spawn();
    try {
      await until("flock has it", async () => !(await canLock(file)));
      const says = new RegExp(
        `^lockvisor: disk ${disk} is locked by process ${stray.pid} on [^\\n]*no note[^\\n]*\\n$`,
      );
      const refused = await world.run(["run", "--name", "vm2", "--disk", disk, "--", "true"]);
      assert.equal(refused.code, 75);
      assert.match(refused.stderr, says);
      const { locked, holders } = await inspect(world, disk);
      assert.equal(locked, true);
      assert.deepEqual(holders.map(({ name, pid, alive }) => [name, pid, alive]), [[null, stray.pid, true]]);
    } finally {
      const children = Deno.readTextFileSync(`/proc/${stray.pid}/task/${stray.pid}/children`).trim();
      for (const pid of children.split(" ").filter((word) => word !== "")) killIfThere(Number(pid));
      await stray.status;
    }
  }
});

const COMPATIBLE: Record<string, string[]> = {
  exclusive: [],
  shared: ["shared", "readonly"],
  readonly: ["shared", "readonly"],
};

for (const [held, granted] of Object.entries(COMPATIBLE)) {
  Deno.test(`check and run agree on what is granted beside ${held}`, async () => {
    await using world = await World.create();
    const disk = await world.disk("a");
    await world.startRunning([
      "run",
      "--name",
      "vm1",
      "--disk",
      `${disk},access=${held}`,
      "--",
      "sleep",
      "60",
    ]);
    for (const asked of ["exclusive", "shared", "readonly"]) {
      const option = `${disk},access=${asked}`;
      const before = await everything(world);
      const text = await world.run(["check", "--disk", option]);
      const json = await world.run(["check", "--json", "--disk", option]);
      assert.deepEqual(await everything(world), before, "check takes and writes nothing");
      const wanted = granted.includes(asked);
      assert.deepEqual([text.code, json.code], wanted ? [0, 0] : [1, 1], `${asked} beside ${held}`);
      assert.equal(text.stderr + json.stderr, "");
      assert.match(
        text.stdout,
        wanted ? /: free\n$/ : new RegExp(`locked by guest "vm1" \\(pid \\d+ on .*, ${held}, since`),
      );
      const answer = JSON.parse(json.stdout);
      assert.equal(answer.granted, wanted);
      assert.deepEqual(
        answer.resources[0].holders.map(({ name }: { name: string }) => name),
        wanted ? [] : ["vm1"],
      );
      const run = await world.run(["run", "--name", "vm2", "--disk", option, "--", "true"]);
      assert.equal(run.code, wanted ? 0 : 75, `${asked} beside ${held}`);
    }
  });
}

Deno.test("check says no when one of several is locked, and names only that one", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", b, "--", "sleep", "60"]);
  const { code, stdout } = await world.run(["check", "--disk", a, "--disk", b, "--lease", "cluster:db"]);
  assert.equal(code, 1);
  const lines = stdout.trimEnd().split("\n");
  assert.match(lines[0]!, /\/a \(exclusive\): free$/);
  assert.match(lines[1]!, /\/b \(exclusive\): locked by guest "vm1"/);
  assert.match(lines[2]!, /^lease cluster:db \(exclusive\): free$/);
});

Deno.test("--dry-run tells identities, keys and holders, and takes and writes nothing", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const before = await everything(world);
  const options = ["run", "--dry-run", "--name", "vm2", "--disk", disk, "--lease", "cluster:db"];
  const { code, stdout, stderr } = await world.run([...options, "--", "touch", "started"]);
  assert.deepEqual([code, stderr], [0, ""]);
  const { resource } = await inspect(world, disk);
  for (const { text, key } of resource.identities) {
    assert.ok(stdout.includes(`identity ${text}\n`) && stdout.includes(`key      ${key}\n`), stdout);
  }
  assert.match(stdout, /^disk .*\/a \(exclusive\): locked by guest "vm1"/m);
  assert.match(stdout, /^lease cluster:db \(exclusive\): free/m);
  assert.match(stdout, /^lease guest:[0-9a-f-]{36} \(exclusive\): free/m);
  const json = JSON.parse((await world.run([...options, "--json"])).stdout);
  assert.deepEqual(json.resources.map(({ verdict }: { verdict: string }) => verdict), [
    "free",
    "refused",
    "free",
  ]);
  assert.deepEqual(await everything(world), before);
});

Deno.test("init makes a private directory whatever the umask, and again changes nothing and says so", async () => {
  await using world = await World.create();
  const made = await world.execute("sh", ["-c", `umask 0; exec "$0" init new/lockspace`, BINARY]);
  const path = `${world.directory}/new/lockspace`;
  assert.match(made.stdout, new RegExp(`^made the lockspace ${path} \\(id [0-9a-f-]{36}\\)\\n$`));
  assert.equal((await Deno.stat(path)).mode! & 0o7777, 0o700);
  assert.equal((await Deno.stat(`${path}/lockspace.json`)).mode! & 0o7777, 0o600);
  const before = await everything(world);
  const again = await world.run(["init", "new/lockspace/"]);
  assert.equal(again.code, 0);
  assert.match(
    again.stdout,
    new RegExp(`^${path}/? is a lockspace already \\(id [0-9a-f-]{36}\\); nothing changed\\n$`),
  );
  const json = JSON.parse((await world.run(["init", "--json", path])).stdout);
  assert.deepEqual([json.lockspace, json.outcome], [path, "existed"]);
  assert.ok(made.stdout.includes(json.id));
  assert.deepEqual(await everything(world), before);
});
