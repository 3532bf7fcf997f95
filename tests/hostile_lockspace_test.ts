import assert from "node:assert/strict";
import { canLock, lockFiles } from "./support/kernel.ts";
import { type Answer, assertAnswer, assertNotStarted, assertRefused, runBounded } from "./support/refused.ts";
import { BINARY, World } from "./support/world.ts";

const NAMED = ["--name", "vm1"];

/** A world in which guest vm1 has run before on its disk: all files that a start makes are there. */
class UsedWorld implements AsyncDisposable {
  readonly world: World;
  readonly disk: string;
  /** The words of `run` that were used and are to be used again. */
  readonly start: string[];
  /** The keys of the disk. */
  readonly keys: string[];

  private constructor(world: World, disk: string, keys: string[]) {
    this.world = world;
    this.disk = disk;
    this.start = [...NAMED, "--disk", disk];
    this.keys = keys;
  }

  static async create(): Promise<UsedWorld> {
    const world = await World.create();
    const disk = await world.disk("a");
    const used = await world.run(["run", ...NAMED, "--disk", disk, "--", "true"]);
    assert.equal(used.code, 0, used.stderr);
    const { resource } = JSON.parse((await world.run(["inspect", "--json", disk])).stdout);
    return new UsedWorld(world, disk, resource.identities.map(({ key }: { key: string }) => key));
  }

  /** The lock file of the disk's first key. */
  get lockFile(): string {
    return `${this.world.lockspace}/${this.keys[0]}.a`;
  }

  /** The generation file of the disk's last key: all others have been read when its turn comes. */
  get stateFile(): string {
    return `${this.world.lockspace}/${this.keys.at(-1)}.d/state.json`;
  }

  /** The notes about the disk's keys. */
  get notes(): string[] {
    return this.keys.flatMap((key) => {
      const directory = `${this.world.lockspace}/${key}.d`;
      return Array.from(Deno.readDirSync(directory), ({ name }) => `${directory}/${name}`);
    }).filter((file) => !file.endsWith("/state.json"));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.world[Symbol.asyncDispose]();
  }
}

/** Something in a place where it must not be. */
interface Hostility extends Answer {
  kind: string;
  tamper(used: UsedWorld): Promise<unknown> | void;
}

function exchange(path: string, put: () => Promise<unknown>): Promise<unknown> {
  return Deno.remove(path, { recursive: true }).then(put);
}

async function makeFifo({ world }: UsedWorld, path: string): Promise<void> {
  await Deno.remove(path, { recursive: true });
  assert.equal((await world.execute("mkfifo", [path])).code, 0);
}

const GARBAGE = new Uint8Array(9 * 1024 * 1024).fill(0x20);

const LOCKSPACES: Hostility[] = [
  {
    kind: "a lockspace that is missing",
    tamper: ({ world }) => Deno.rename(world.lockspace, `${world.directory}/elsewhere`),
    code: 78,
    says: /lockspace \/.*\/lockspace does not exist; is its filesystem mounted\?.*lockvisor init \//,
  },
  {
    kind: "an empty directory, as an unmounted filesystem leaves it",
    tamper: async ({ world }) => {
      await Deno.rename(world.lockspace, `${world.directory}/elsewhere`);
      await Deno.mkdir(world.lockspace, { mode: 0o700 });
    },
    code: 78,
    says: /lockspace \/.*\/lockspace has no lockspace\.json; is its filesystem mounted\?/,
  },
  {
    kind: "lock files without lockspace.json",
    tamper: ({ world }) => Deno.remove(`${world.lockspace}/lockspace.json`),
    code: 78,
    says: /lockspace \/.*\/lockspace has no lockspace\.json/,
  },
  {
    kind: "a file as lockspace",
    tamper: ({ world }) => exchange(world.lockspace, () => Deno.writeTextFile(world.lockspace, "")),
    code: 78,
    says: /lockspace \/.*\/lockspace is not a directory/,
  },
  {
    kind: "a lockspace below a file",
    tamper: ({ world }) => exchange(world.lockspace, () => Deno.symlink("a/b", world.lockspace)),
    code: 78,
    says: /\/lockspace/,
  },
  {
    kind: "a link to nowhere as lockspace",
    tamper: ({ world }) => exchange(world.lockspace, () => Deno.symlink("nowhere", world.lockspace)),
    code: 78,
    says: /\/lockspace is a symbolic link that leads nowhere/,
  },
  {
    kind: "a link to itself as lockspace",
    tamper: ({ world }) => exchange(world.lockspace, () => Deno.symlink("lockspace", world.lockspace)),
    code: 65,
    says: /\/lockspace: too many levels of symbolic links/,
  },
  {
    kind: "a lockspace of another user",
    tamper: ({ world }) => Deno.chown(world.lockspace, 65534, null),
    code: 77,
    says: /lockspace \/.*\/lockspace belongs to uid 65534, not to uid 0/,
  },
  {
    kind: "a lockspace that a group may write",
    tamper: ({ world }) => Deno.chmod(world.lockspace, 0o770),
    code: 77,
    says: /lockspace \/.*\/lockspace may be written by others \(mode 0770\); .*chmod 0700 \//,
  },
  {
    kind: "a lockspace that everybody may write, with the sticky bit",
    tamper: ({ world }) => Deno.chmod(world.lockspace, 0o1777),
    code: 77,
    says: /may be written by others \(mode 1777\)/,
  },
  {
    kind: "a lockspace.json that is cut off",
    tamper: ({ world }) => Deno.writeTextFile(`${world.lockspace}/lockspace.json`, `{"version":1,"id":`),
    code: 65,
    says: /\/lockspace\.json cannot be read: it is not complete JSON/,
  },
  {
    kind: "a lockspace.json of a newer version",
    tamper: ({ world }) =>
      Deno.writeTextFile(`${world.lockspace}/lockspace.json`, `{"version":2,"id":"x","created":"x"}`),
    code: 78,
    says: /lockspace \/.*\/lockspace has version 2, made by a newer lockvisor/,
  },
  {
    kind: "a lockspace.json without a version",
    tamper: ({ world }) => Deno.writeTextFile(`${world.lockspace}/lockspace.json`, `{"id":"x"}`),
    code: 65,
    says: /\/lockspace\.json cannot be read: field "version" of it is not a whole number/,
  },
  {
    kind: "a lockspace.json that is a symbolic link",
    tamper: async ({ world }) => {
      await Deno.rename(`${world.lockspace}/lockspace.json`, `${world.directory}/mark`);
      await Deno.symlink(`${world.directory}/mark`, `${world.lockspace}/lockspace.json`);
    },
    code: 65,
    says: /\/lockspace\.json cannot be read: it is a symbolic link/,
  },
  {
    kind: "a lockspace.json that is a FIFO",
    tamper: (used) => makeFifo(used, `${used.world.lockspace}/lockspace.json`),
    code: 65,
    says: /\/lockspace\.json cannot be read: it is not a regular file/,
  },
];

const LOCK_FILES: Hostility[] = [
  {
    kind: "a link to nowhere as lock file",
    tamper: ({ lockFile }) => exchange(lockFile, () => Deno.symlink("nowhere", lockFile)),
    code: 65,
    says: /lock file \/.*[0-9a-f]{64}\.a is a symbolic link; .*find out who did, remove it/,
  },
  {
    kind: "a link to another file as lock file",
    tamper: ({ lockFile, world }) =>
      exchange(lockFile, () => Deno.symlink(`${world.directory}/lockvisor.toml`, lockFile)),
    code: 65,
    says: /lock file \/.*\.a is a symbolic link/,
  },
  {
    kind: "a directory as lock file",
    tamper: ({ lockFile }) => exchange(lockFile, () => Deno.mkdir(lockFile)),
    code: 65,
    says: /lock file \/.*\.a is a directory/,
  },
  {
    kind: "a FIFO as lock file",
    tamper: (used) => makeFifo(used, used.lockFile),
    code: 65,
    says: /lock file \/.*\.a is a FIFO/,
  },
  {
    kind: "a lock file with something in it",
    tamper: ({ lockFile }) => Deno.writeTextFile(lockFile, "x"),
    code: 65,
    says: /lock file \/.*\.a has 1 bytes in it and must be empty/,
  },
  {
    kind: "a lock file with a second name",
    tamper: ({ lockFile, world }) => Deno.link(lockFile, `${world.directory}/second`),
    code: 65,
    says: /lock file \/.*\.a has a second name/,
  },
  {
    kind: "a lock file that a group may write",
    tamper: ({ lockFile }) => Deno.chmod(lockFile, 0o660),
    code: 77,
    says: /lock file \/.*\.a may be written by others/,
  },
  {
    kind: "a bad second slot",
    tamper: ({ lockFile }) => Deno.writeTextFile(lockFile.replace(/a$/, "b"), "x"),
    code: 65,
    says: /lock file \/.*\.b has 1 bytes in it/,
  },
];

const STATES: Hostility[] = [
  {
    kind: "a file in place of a key's directory",
    tamper: async ({ stateFile }) => {
      const directory = stateFile.replace("/state.json", "");
      await exchange(directory, () => Deno.writeTextFile(directory, ""));
    },
    code: 65,
    says: /[0-9a-f]{64}\.d.* not a directory/,
  },
  {
    kind: "a link in place of a key's directory",
    tamper: async ({ stateFile, world }) => {
      const directory = stateFile.replace("/state.json", "");
      await Deno.rename(directory, `${world.directory}/elsewhere`);
      await Deno.symlink(`${world.directory}/elsewhere`, directory);
    },
    code: 65,
    says: /[0-9a-f]{64}\.d is not a directory/,
  },
  {
    kind: "a link to nowhere in place of a key's directory",
    tamper: async ({ stateFile }) => {
      const directory = stateFile.replace("/state.json", "");
      await exchange(directory, () => Deno.symlink("nowhere", directory));
    },
    code: 65,
    says: /[0-9a-f]{64}\.d is not a directory/,
  },
  {
    kind: "a generation file that is cut off",
    tamper: ({ stateFile }) => Deno.writeTextFile(stateFile, `{"version":1,"identity":"pa`),
    code: 65,
    says: /generation file \/.*\/state\.json cannot be trusted: it is not complete JSON/,
  },
  {
    kind: "an empty generation file",
    tamper: ({ stateFile }) => Deno.truncate(stateFile),
    code: 65,
    says: /generation file \/.*\/state\.json cannot be trusted: it is not complete JSON/,
  },
  {
    kind: "a generation file of another identity",
    tamper: ({ stateFile }) =>
      Deno.writeTextFile(stateFile, `{"version":1,"identity":"path:other:/x","generation":3}`),
    code: 65,
    says: /cannot be trusted: it speaks of another identity/,
  },
  {
    kind: "a generation below zero",
    tamper: async ({ stateFile }) => {
      const state = JSON.parse(await Deno.readTextFile(stateFile));
      await Deno.writeTextFile(stateFile, JSON.stringify({ ...state, generation: -1 }));
    },
    code: 65,
    says: /cannot be trusted: field "generation" of it is not a whole number/,
  },
  {
    kind: "a generation file with a list in it",
    tamper: ({ stateFile }) => Deno.writeTextFile(stateFile, "[".repeat(100_000) + "]".repeat(100_000)),
    code: 65,
    says: /cannot be trusted: it is not a JSON object/,
  },
  {
    kind: "a generation file that is not UTF-8",
    tamper: ({ stateFile }) => Deno.writeFile(stateFile, new Uint8Array([0x7b, 0xff, 0x7d])),
    code: 65,
    says: /cannot be trusted: it is not UTF-8 text/,
  },
  {
    kind: "a huge generation file",
    tamper: ({ stateFile }) => Deno.writeFile(stateFile, GARBAGE),
    code: 65,
    says: /cannot be trusted: it has 9437184 bytes/,
  },
  {
    kind: "a generation file that is a symbolic link",
    tamper: async ({ stateFile, world }) => {
      await Deno.rename(stateFile, `${world.directory}/elsewhere`);
      await Deno.symlink(`${world.directory}/elsewhere`, stateFile);
    },
    code: 65,
    says: /cannot be trusted: it is a symbolic link/,
  },
  {
    kind: "a generation file that is a link to nowhere",
    tamper: ({ stateFile }) => exchange(stateFile, () => Deno.symlink("nowhere", stateFile)),
    code: 65,
    says: /cannot be trusted: it is a symbolic link/,
  },
  {
    kind: "a generation file that is a FIFO",
    tamper: (used) => makeFifo(used, used.stateFile),
    code: 65,
    says: /cannot be trusted: it is not a regular file/,
  },
];

const RUNTIME_DIRECTORIES: Hostility[] = [
  {
    kind: "a runtime directory that a group may write",
    tamper: ({ world }) => Deno.chmod(world.runtimeDir, 0o770),
    code: 77,
    says: /runtime directory \/.*\/run may be written by others \(mode 0770\)/,
  },
  {
    kind: "a directory of records that everybody may write",
    tamper: ({ world }) => Deno.chmod(`${world.runtimeDir}/guests`, 0o777),
    code: 77,
    says: /runtime directory \/.*\/run\/guests may be written by others/,
  },
  {
    kind: "a runtime directory of another user",
    tamper: ({ world }) => Deno.chown(world.runtimeDir, 65534, null),
    code: 77,
    says: /runtime directory \/.*\/run belongs to uid 65534/,
  },
  {
    kind: "a file as runtime directory",
    tamper: ({ world }) => exchange(world.runtimeDir, () => Deno.writeTextFile(world.runtimeDir, "")),
    code: 78,
    says: /runtime directory \/.*\/run is not a directory/,
  },
  {
    kind: "a link to nowhere as the records' lock file",
    tamper: ({ world }) => {
      const path = `${world.runtimeDir}/guests.lock`;
      return exchange(path, () => Deno.symlink(`${world.directory}/elsewhere`, path));
    },
    code: 65,
    says: /\/run\/guests\.lock is a symbolic link/,
  },
  {
    kind: "a FIFO as the records' lock file",
    tamper: (used) => makeFifo(used, `${used.world.runtimeDir}/guests.lock`),
    code: 65,
    says: /\/run\/guests\.lock is a FIFO/,
  },
  {
    kind: "a directory as the records' lock file",
    tamper: ({ world }) => {
      const path = `${world.runtimeDir}/guests.lock`;
      return exchange(path, () => Deno.mkdir(path));
    },
    code: 65,
    says: /\/run\/guests\.lock is a directory/,
  },
  {
    kind: "a link to nowhere as runtime directory",
    tamper: ({ world }) => exchange(world.runtimeDir, () => Deno.symlink("nowhere", world.runtimeDir)),
    code: 78,
    says: /runtime directory \/.*\/run is a symbolic link that leads nowhere/,
  },
];

for (
  const { kind, tamper, code, says } of [...LOCKSPACES, ...LOCK_FILES, ...STATES, ...RUNTIME_DIRECTORIES]
) {
  Deno.test(`hostile files, ${code}: ${kind}`, async () => {
    await using used = await UsedWorld.create();
    await tamper(used);
    await assertNotStarted(used.world, used.start, { code, says });
    for (const name of fileNames(used.world.lockspace)) {
      assert.ok(await canLock(`${used.world.lockspace}/${name}`), `${name} is free`);
    }
  });
}

/** The lock files that are files. */
function fileNames(lockspace: string): string[] {
  try {
    return lockFiles(lockspace).filter((name) => Deno.lstatSync(`${lockspace}/${name}`).isFile);
  } catch {
    return []; // the lockspace itself is what was exchanged
  }
}

Deno.test("hostile files: a directory as a guest's record", async () => {
  await using used = await UsedWorld.create();
  const { world } = used;
  const [record] = Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`), ({ name }) => name)
    .filter((name) => name.endsWith(".json"));
  const path = `${world.runtimeDir}/guests/${record}`;
  await exchange(path, () => Deno.mkdir(`${path}/not-empty`, { recursive: true }));
  const result = await world.run(["run", ...used.start, "--", "touch", `${world.directory}/started`]);
  assertAnswer(result, { code: 74, says: /cannot write \/.*\/guests\/[0-9a-f-]{36}\.json/ });
  assert.equal((await world.run(["check", "--disk", used.disk])).code, 0, "the locks were given back");
  assert.deepEqual(used.notes, [], "and so were the notes");
});

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

/** A shell script in a mount namespace of its own, on a small filesystem at `$FS`; it gets `$0` = lockvisor. */
function onOwnFilesystem(world: World, options: string, script: string) {
  const prepare =
    `mkdir "$FS" && mount -t tmpfs -o ${options} tmpfs "$FS" && "$0" init "$FS/lockspace" && set +e\n`;
  return world.execute("unshare", ["-m", "sh", "-e", "-c", prepare + script, BINARY], {
    env: { FS: `${world.directory}/fs`, LOCKVISOR_LOCKSPACE: `${world.directory}/fs/lockspace` },
  });
}

/** Runs a guest that must be refused, then asks whether everything is free. */
const REFUSED_START = `
  "$0" run --name vm1 --disk a -- touch started 2>stderr; echo "run $?"
  [ -e started ] && echo started
  for file in "$FS"/lockspace/*.[ab]; do [ ! -e "$file" ] || flock -n "$file" true || echo "locked $file"; done
  find "$FS" -name '*.tmp' -o -name 'testhost.*' -o -path '*/state.json' -size 0
`;

Deno.test("a lockspace on a filesystem without room: 73, nothing started, nothing locked, and it works once there is room", async () => {
  await using world = await World.create();
  await world.disk("a");
  const { code, stdout, stderr } = await onOwnFilesystem(
    world,
    "size=64k",
    `dd if=/dev/zero of="$FS/ballast" bs=4k 2>/dev/null
    ${REFUSED_START}
    "$0" check --disk a; echo "check $?"; rm "$FS/ballast"
    "$0" run --name vm1 --disk a -- echo works`,
  );
  assert.equal(code, 0, stderr);
  const lines = stdout.trimEnd().split("\n").slice(1);
  assert.deepEqual(lines, ["run 73", `disk ${world.directory}/a (exclusive): free`, "check 0", "works"]);
  const said = await Deno.readTextFile(`${world.directory}/stderr`);
  assert.match(said, /^lockvisor: cannot (write|create) [^\n]*: no space is left on the filesystem[^\n]*\n$/);
});

Deno.test("a lockspace on a filesystem without inodes: 73, nothing started, nothing locked", async () => {
  await using world = await World.create();
  await world.disk("a");
  // Inodes for the root, the lockspace and its mark, and for a few lock files, in the middle of which they run out.
  for (const inodes of [4, 6, 8, 9]) {
    const { code, stdout, stderr } = await onOwnFilesystem(world, `nr_inodes=${inodes}`, REFUSED_START);
    assert.equal(code, 0, stderr);
    assert.deepEqual(stdout.trimEnd().split("\n").slice(1), ["run 73"], `${inodes} inodes`);
    const said = await Deno.readTextFile(`${world.directory}/stderr`);
    assert.match(said, /^lockvisor: cannot [^\n]*: no space is left on the filesystem[^\n]*\n$/);
    await Deno.remove(`${world.directory}/fs`);
  }
});

Deno.test("a lockspace on a read-only filesystem: 73", async () => {
  await using world = await World.create();
  await world.disk("a");
  const { code, stdout, stderr } = await onOwnFilesystem(
    world,
    "size=1m",
    `mount -o remount,ro "$FS"\n${REFUSED_START}`,
  );
  assert.equal(code, 0, stderr);
  assert.deepEqual(stdout.trimEnd().split("\n").slice(1), ["run 73"]);
  const said = await Deno.readTextFile(`${world.directory}/stderr`);
  assert.match(said, /^lockvisor: cannot [^\n]*: the filesystem is read-only\n$/);
});

const STRACE = ["strace", "-f", "-o", "/dev/null", "-e"];

/** Runs lockvisor with a system call that fails. */
function withFault(world: World, fault: string) {
  return (args: string[]) =>
    world.execute("strace", [...STRACE.slice(1), `inject=${fault}`, BINARY, ...args]);
}

for (const errno of ["EOPNOTSUPP", "ENOLCK", "ENOSYS"]) {
  Deno.test(`a lockspace on a filesystem without flock (${errno}): 78`, async () => {
    await using used = await UsedWorld.create();
    const says = /lockspace \/.*\/lockspace is on a filesystem \(\w+\) that does not offer flock/;
    const execute = withFault(used.world, `flock:error=${errno}`);
    await assertNotStarted(used.world, used.start, { code: 78, says }, { execute });
  });
}

Deno.test("check on a filesystem without flock, where only trying tells: 78", async () => {
  await using used = await UsedWorld.create();
  // In a pid namespace of its own the kernel's table of locks shows nobody outside.
  const execute = (args: string[]) =>
    used.world.execute("unshare", [
      "-p",
      "-f",
      "--mount-proc",
      ...STRACE,
      "inject=flock:error=ENOLCK",
      BINARY,
      ...args,
    ]);
  const says = /lockspace \/.*\/lockspace is on a filesystem \(\w+\) that does not offer flock/;
  await assertRefused(used.world, ["check", "--disk", used.disk], { code: 78, says }, { execute });
});

Deno.test("a runtime directory on a filesystem without flock: 78, and the locks are given back", async () => {
  await using used = await UsedWorld.create();
  const { world, disk, start } = used;
  const lock = `${world.runtimeDir}/guests.lock`;
  const args = ["run", ...start, "--", "touch", `${world.directory}/started`];
  // -P: only calls on this file fail; the lockspace is on another filesystem then.
  const result = await world.execute("strace", [
    "-P",
    lock,
    ...STRACE.slice(1),
    "inject=flock:error=ENOLCK",
    BINARY,
    ...args,
  ]);
  assertAnswer(result, { code: 78, says: /guests\.lock: .*flock/ });
  assert.equal((await world.run(["check", "--disk", disk])).code, 0);
  await assert.rejects(Deno.lstat(`${world.directory}/started`), Deno.errors.NotFound);
});

Deno.test("a lockspace whose filesystem fails: 74", async () => {
  await using used = await UsedWorld.create();
  const execute = withFault(used.world, "flock:error=EIO");
  const says = /cannot lock a file in \/.*\/lockspace: input\/output error/;
  await assertNotStarted(used.world, used.start, { code: 74, says }, { execute });
});

/** Fails every look at one file, in whatever way it is looked at. */
function withUnreadable(world: World, path: string, errno: string, env: Record<string, string> = {}) {
  const calls = "faccessat,faccessat2,statx,newfstatat,readlinkat,openat";
  const fault = ["-P", path, ...STRACE.slice(1), `inject=${calls}:error=${errno}`];
  return (args: string[]) => world.execute("strace", [...fault, BINARY, ...args], { env });
}

for (const errno of ["EIO", "ESTALE"]) {
  Deno.test(`a generation file that cannot be read (${errno}) is not taken for one that is not there: 74`, async () => {
    await using used = await UsedWorld.create();
    const execute = withUnreadable(used.world, used.stateFile, errno);
    await assertNotStarted(used.world, used.start, { code: 74, says: /\/state\.json: / }, { execute });
  });
}

Deno.test("a default configuration that may not be read is not taken for one that is not there: 77", async () => {
  await using used = await UsedWorld.create();
  const path = "/etc/lockvisor/lockvisor.toml";
  const execute = withUnreadable(used.world, path, "EACCES", { LOCKVISOR_CONFIG: "" });
  const says = new RegExp(`${path}: permission denied`);
  await assertNotStarted(used.world, used.start, { code: 77, says }, { execute });
});
