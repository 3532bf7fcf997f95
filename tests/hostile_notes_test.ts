import assert from "node:assert/strict";
import { assertNotStarted, assertRefused, runBounded } from "./support/refused.ts";
import { exchange, makeFifo, UsedWorld } from "./support/used_world.ts";
import { World } from "./support/world.ts";

const GARBAGE = new Uint8Array(9 * 1024 * 1024).fill(0x20);

/** Notes about a key that is locked: they name the holder and decide nothing. */
const NOTES: { kind: string; put(note: string, used: UsedWorld): Promise<unknown>; warning: RegExp }[] = [
  {
    kind: "a note that is cut off",
    put: (note) => Deno.writeTextFile(note, `{"version":1,"guest":{"uu`),
    warning: /cannot be read: it is not complete JSON/,
  },
  {
    kind: "a note with wrong types",
    put: (note) => Deno.writeTextFile(note, `{"version":1,"guest":[],"host":7}`),
    warning: /cannot be read: "guest" is not a JSON object/,
  },
  {
    kind: "a huge note",
    put: (note) => Deno.writeFile(note, GARBAGE),
    warning: /cannot be read: it has 9437184 bytes/,
  },
  { kind: "a FIFO as note", put: (note, used) => makeFifo(used, note), warning: /it is not a regular file/ },
  {
    kind: "a link as note",
    put: (note, { world }) => exchange(note, () => Deno.symlink(world.configFile, note)),
    warning: /it is a symbolic link/,
  },
  {
    kind: "a directory as note",
    put: (note) => exchange(note, () => Deno.mkdir(note)),
    warning: /it is not a regular file/,
  },
];

for (const { kind, put, warning } of NOTES) {
  Deno.test(`hostile files, 75: ${kind} about a locked disk`, async () => {
    await using used = await UsedWorld.create();
    const { world, disk } = used;
    const guest = await world.startRunning(["run", ...used.start, "--", "sleep", "60"]);
    assert.equal(used.notes.length, 2, "a note for the path and one for the inode");
    for (const note of used.notes) await put(note, used);
    const says = new RegExp(`disk ${disk} is locked by process ${guest.pid} on .*, which has left no note`);
    const start = ["--name", "vm2", "--lease", "made:before", "--disk", disk];
    // The lock files of vm2's own lease and of the other one are made at first use, whatever comes of it.
    await world.run(["run", "--name", "vm2", "--lease", "made:before", "--", "true"]);
    await assertNotStarted(world, start, { code: 75, says });
    const inspected = await runBounded(world, ["inspect", "--json", disk]);
    assert.equal(inspected.code, 0, inspected.stderr);
    const lines = inspected.stderr.trimEnd().split("\n");
    assert.equal(lines.length, 2, "a warning for each");
    for (const line of lines) {
      assert.match(line, /^lockvisor: warning: note \/.*\.json /);
      assert.match(line, warning);
    }
    const { locked, holders } = JSON.parse(inspected.stdout);
    assert.equal(locked, true);
    assert.deepEqual(holders.map((holder: { pid: number; name: null }) => [holder.pid, holder.name]), [
      [guest.pid, null],
    ]);
  });
}

Deno.test("hostile files: a note on a free disk keeps nobody out and is cleared away", async () => {
  await using used = await UsedWorld.create();
  const { world } = used;
  const foreign = used.keys.map((key) =>
    `${world.lockspace}/${key}.d/otherhost.11111111-2222-4333-8444-555555555555.json`
  );
  for (const note of foreign) await Deno.writeTextFile(note, "{");
  await world.startRunning(["run", ...used.start, "--", "sleep", "60"]);
  for (const note of foreign) await assert.rejects(Deno.lstat(note), Deno.errors.NotFound);
});

Deno.test("hostile files, 75: a note with escapes in its words steers no terminal", async () => {
  await using used = await UsedWorld.create();
  const { world, disk } = used;
  await world.startRunning(["run", ...used.start, "--", "sleep", "60"]);
  for (const file of used.notes) {
    const note = JSON.parse(await Deno.readTextFile(file));
    note.guest.name = "\u001b[2J\nlockvisor: disk is free";
    note.host.name = "\u202eevil\r";
    note.since = "\u0007".repeat(10);
    await Deno.writeTextFile(file, JSON.stringify(note));
  }
  const says = /is locked by guest "\\u001b\[2J\\nlockvisor: disk is free" \(pid \d+ on \\u202eevil\\r/;
  await world.run(["run", "--name", "vm2", "--", "true"]);
  await assertNotStarted(world, ["--name", "vm2", "--disk", disk], { code: 75, says });
  for (const command of [["inspect", disk], ["check", "--disk", disk]]) {
    const { stdout } = await world.run(command);
    assert.doesNotMatch(stdout.replaceAll("\n", ""), /[\p{Cc}\u202e]/u, command[0]);
  }
});

Deno.test("hostile files, 65: status names a record that is cut off, and still shows the other guests", async () => {
  await using world = await World.create();
  const guests = ["vm1", "vm2"].map((name) => ["run", "--name", name, "--", "sleep", "60"]);
  for (const args of guests) await world.startRunning(args);
  const files = Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`), ({ name }) => name).sort();
  const [cutOff] = files;
  const path = `${world.runtimeDir}/guests/${cutOff}`;
  const whole = await Deno.readTextFile(path);
  await Deno.writeTextFile(path, whole.slice(0, 100));
  const { name: hidden } = JSON.parse(whole);
  const visible = hidden === "vm1" ? "vm2" : "vm1";
  for (const args of [["status"], ["status", "--json"]]) {
    const { code, stdout, stderr } = await world.run(args);
    assert.equal(code, 65);
    assert.match(stderr, /^lockvisor: record \/.*\.json cannot be read: it is not complete JSON; [^\n]*\n$/);
    assert.ok(stderr.includes(path));
    assert.ok(stdout.includes(visible) && !stdout.includes(hidden), stdout);
    if (!args.includes("--json")) continue;
    const { guests, error } = JSON.parse(stdout);
    assert.deepEqual([guests.length, error.code, `lockvisor: ${error.message}\n`], [1, "data", stderr]);
  }
  assert.equal((await world.run(["status", visible])).code, 0, "a guest with a good record");
  const uuid = cutOff!.replace(".json", "");
  await assertRefused(world, ["status", uuid], { code: 65, says: /record \/.*\.json cannot be read/ });
});

Deno.test("hostile files: records that are no files are told, and none of them hangs", async () => {
  await using world = await World.create();
  await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  const [record] = Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`), ({ name }) => name);
  const path = `${world.runtimeDir}/guests/${record}`;
  const bad = "11111111-2222-4333-8444-555555555555.json";
  const place = `${world.runtimeDir}/guests/${bad}`;
  const putWithoutPid = async () => {
    const record = JSON.parse(await Deno.readTextFile(path));
    record.carriers[0].pid = -1;
    await Deno.writeTextFile(place, JSON.stringify(record));
  };
  const puts: [() => Promise<unknown>, RegExp][] = [
    [() => world.execute("mkfifo", [place]), /it is not a regular file/],
    [() => Deno.mkdir(place), /it is not a regular file/],
    [() => Deno.symlink(path, place), /it is a symbolic link/],
    [() => Deno.copyFile(path, place), /it speaks of another guest/],
    [() => Deno.writeFile(place, GARBAGE), /it has 9437184 bytes/],
    [() => Deno.writeTextFile(place, `{"version":99}`), /its version is not known here/],
    [() => Deno.writeTextFile(place, `{"version":1,"carriers":[]}`), /"carriers" of it is empty/],
    [putWithoutPid, /"pid" of the process is not a process id/],
  ];
  for (const [put, says] of puts) {
    await put();
    const { code, stdout, stderr } = await runBounded(world, ["status"]);
    assert.equal(code, 65, stderr);
    assert.match(stderr, says);
    assert.match(stdout, /^vm1 /m);
    await Deno.remove(place, { recursive: true });
  }
  assert.equal((await world.run(["status"])).code, 0);
});
