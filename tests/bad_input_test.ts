import assert from "node:assert/strict";
import { type Answer, assertNotStarted, assertRefused, everything } from "./support/refused.ts";
import { BINARY, World } from "./support/world.ts";

/** A kind of bad input: what is given, and the answer. */
interface BadInput extends Answer {
  kind: string;
  /** The arguments, made in a world whose directory is the working directory. */
  args: string[] | ((world: World) => Promise<string[]> | string[]);
  env?: Record<string, string>;
}

const NAMED = ["--name", "vm1"];

/** A disk of a world in which a guest has run before: what the first start ever makes is there. */
async function diskOfUsedWorld(world: World): Promise<string> {
  const used = await world.run(["run", "--name", "earlier", "--", "true"]);
  assert.equal(used.code, 0, used.stderr);
  return await world.disk("a");
}

/** Bad words on the command line of `run`; the guest's command is added. */
const STARTS: BadInput[] = [
  { kind: "an unknown flag", args: [...NAMED, "--bogus"], code: 64, says: /unknown option --bogus/ },
  { kind: "an unknown short flag", args: [...NAMED, "-x"], code: 64, says: /unknown option -x/ },
  {
    kind: "a flag without its value at the end",
    args: [...NAMED, "--disk"],
    code: 64,
    says: /--disk needs a value/,
  },
  {
    kind: "a flag without its value before another flag",
    args: ["--disk", "--name", "vm1"],
    code: 64,
    says: /--disk needs a value/,
  },
  { kind: "an empty value", args: [...NAMED, "--disk="], code: 64, says: /--disk needs a value/ },
  { kind: "a flag twice", args: [...NAMED, "--name", "vm2"], code: 64, says: /--name is given twice/ },
  {
    kind: "a value where none belongs",
    args: [...NAMED, "--dry-run=yes"],
    code: 64,
    says: /--dry-run takes no value/,
  },
  {
    kind: "an argument too many",
    args: [...NAMED, "surplus"],
    code: 64,
    says: /unexpected argument "surplus"/,
  },
  { kind: "no guest's name", args: [], code: 64, says: /needs a name; add --name/ },

  { kind: "an empty name", args: ["--name="], code: 64, says: /--name needs a value/ },
  {
    kind: "a name of spaces",
    args: ["--name", "  "],
    code: 64,
    says: /name " {2}" is not 1 to 255 printable/,
  },
  {
    kind: "a name with a slash",
    args: ["--name", "a/b"],
    code: 64,
    says: /name "a\/b" is not .*without "\/"/,
  },
  {
    kind: "a name with control characters",
    args: ["--name", "a\n\u001b[31mb"],
    code: 64,
    says: /name "a\\n\\u001b\[31mb" is not 1 to 255 printable/,
  },
  {
    kind: "a name of 256 characters",
    args: ["--name", "x".repeat(256)],
    code: 64,
    says: /name "x{80}…" is not 1 to 255/,
  },

  {
    kind: "a short UUID",
    args: [...NAMED, "--uuid", "1234-5678"],
    code: 64,
    says: /"1234-5678" is not a UUID/,
  },
  {
    kind: "the nil UUID",
    args: [...NAMED, "--uuid", "00000000-0000-0000-0000-000000000000"],
    code: 64,
    says: /is the nil UUID/,
  },
  {
    kind: "a UUID with other letters",
    args: [...NAMED, "--uuid", "zzzzzzzz-2222-4333-8444-555555555555"],
    code: 64,
    says: /"zzzzzzzz-.*" is not a UUID/,
  },
  {
    kind: "a UUID that is a path",
    args: [...NAMED, "--uuid", "../../../../../../etc/passwd"],
    code: 64,
    says: /is not a UUID/,
  },
  { kind: "an id with a space", args: [...NAMED, "--id", "a b"], code: 64, says: /id "a b" is not 1 to 64/ },
  { kind: "an id of 65 letters", args: [...NAMED, "--id", "i".repeat(65)], code: 64, says: /id "i+" is not/ },
  {
    kind: "a duration that is none",
    args: [...NAMED, "--wait=soon"],
    code: 64,
    says: /--wait: "soon" is not a duration/,
  },
  { kind: "a negative duration", args: [...NAMED, "--wait=-1s"], code: 64, says: /"-1s" is not a duration/ },
  {
    kind: "a duration that is not joined to its flag",
    args: [...NAMED, "--wait", "10s"],
    code: 64,
    says: /unexpected argument "10s"/,
  },
  {
    kind: "an unknown action on lock failure",
    args: [...NAMED, "--on-lock-failure", "explode"],
    code: 64,
    says: /--on-lock-failure "explode" is none of: pause, kill, ignore/,
  },
  {
    kind: "an unknown plugin",
    args: [...NAMED, "--plugin", "etcd"],
    code: 69,
    says: /there is no plugin "etcd"; there are: sync-manager, nop/,
  },

  {
    kind: "a disk without a path",
    args: [...NAMED, "--disk", ",access=shared"],
    code: 64,
    says: /disk ",access=shared" has no path/,
  },
  {
    kind: "an unknown option of a disk",
    args: [...NAMED, "--disk", "a,size=3"],
    code: 64,
    says: /disk "a,size=3": unknown option "size"/,
  },
  {
    kind: "an unknown access",
    args: [...NAMED, "--disk", "a,access=writable"],
    code: 64,
    says: /access "writable" is unknown; it is one of exclusive, shared, readonly/,
  },
  {
    kind: "an access twice",
    args: [...NAMED, "--disk", "a,access=shared,access=readonly"],
    code: 64,
    says: /access is given twice/,
  },
  {
    kind: "a comma in a path that is not doubled",
    args: async (world) => [...NAMED, "--disk", await world.disk("a,b")],
    code: 64,
    says: /unknown option "b".*a comma in the path is doubled/,
  },
  {
    kind: "three commas, of which one is left",
    args: async (world) => [...NAMED, "--disk", `${await world.disk("a")},,,b`],
    code: 64,
    says: /unknown option "b"/,
  },
  {
    kind: "a comma at the end of a path",
    args: async (world) => [...NAMED, "--disk", `${await world.disk("a")},`],
    code: 64,
    says: /unknown option ""/,
  },
  {
    kind: "a disk in QEMU's json form",
    args: [...NAMED, "--disk", "json:{}"],
    code: 64,
    says: /json: form is not understood/,
  },
  {
    kind: "a disk with an unknown scheme",
    args: [...NAMED, "--disk", "foo://server/x"],
    code: 65,
    says: /the scheme "foo" is not understood/,
  },

  {
    kind: "a disk that does not exist",
    args: (world) => [...NAMED, "--disk", `${world.directory}/none`],
    code: 65,
    says: /disk \/.*\/none does not exist/,
  },
  {
    kind: "a disk below a file",
    args: async (world) => [...NAMED, "--disk", `${await world.disk("a")}/b`],
    code: 65,
    says: /disk \/.*\/a\/b: a component of the path is not a directory/,
  },
  {
    kind: "a directory as disk",
    args: (world) => [...NAMED, "--disk", world.directory],
    code: 65,
    says: /disk \/.* is a directory/,
  },
  {
    kind: "a FIFO as disk",
    args: async (world) => {
      await world.execute("mkfifo", ["fifo"]);
      return [...NAMED, "--disk", "fifo"];
    },
    code: 65,
    says: /disk \/.*\/fifo is a named pipe/,
  },
  {
    kind: "a character device as disk",
    args: [...NAMED, "--disk", "/dev/null"],
    code: 65,
    says: /disk \/dev\/null is a character device/,
  },
  {
    kind: "a symbolic link that leads nowhere",
    args: async (world) => {
      await Deno.symlink("nowhere", `${world.directory}/dangling`);
      return [...NAMED, "--disk", "dangling"];
    },
    code: 65,
    says: /disk \/.*\/dangling is a symbolic link to nowhere, which does not exist/,
  },
  {
    kind: "a symbolic link that leads to itself",
    args: async (world) => {
      await Deno.symlink("loop", `${world.directory}/loop`);
      return [...NAMED, "--disk", "loop"];
    },
    code: 65,
    says: /disk \/.*\/loop: too many levels of symbolic links/,
  },
  {
    kind: "a name of 300 characters in a path",
    args: [...NAMED, "--disk", "x".repeat(300)],
    code: 65,
    says: /disk \/.*x…x+: the name is too long/,
  },
  {
    kind: "a path with a newline and escapes that leads nowhere",
    args: [...NAMED, "--disk", "/no\nsuch\u001b]0;title\u0007"],
    code: 65,
    says: /disk \/no\\nsuch\\u001b\]0;title\\u0007 does not exist/,
  },
  {
    kind: "a symbolic link to a name that is not valid UTF-8",
    args: async (world) => {
      const script = `bad=$(printf 'bad\\377'); : > "$bad" && ln -s "$bad" link`;
      assert.equal((await world.execute("sh", ["-c", script])).code, 0);
      return [...NAMED, "--disk", "link"];
    },
    code: 65,
    says: /disk \/.*\/link: .*not valid UTF-8/,
  },
  {
    kind: "the same disk under two names",
    args: async (world) => {
      const disk = await diskOfUsedWorld(world);
      await Deno.symlink(disk, `${world.directory}/alias`);
      return [...NAMED, "--disk", disk, "--disk", "alias,access=readonly"];
    },
    code: 65,
    says: /disk \/.*\/alias \(readonly\) is the same as or overlaps disk \/.*\/a \(exclusive\)/,
  },
  {
    kind: "the same disk under two names, both exclusive",
    args: async (world) => {
      const disk = await diskOfUsedWorld(world);
      await Deno.link(disk, `${world.directory}/hard`);
      return [...NAMED, "--disk", disk, "--disk", "hard"];
    },
    code: 65,
    says: /one guest cannot use it under both names/,
  },
  {
    kind: "the same disk with two accesses",
    args: async (world) => {
      const disk = await diskOfUsedWorld(world);
      return [...NAMED, "--disk", `${disk},access=shared`, "--disk", `${disk},access=readonly`];
    },
    code: 65,
    says: /is given twice, with access shared and readonly/,
  },

  {
    kind: "a lease without a colon",
    args: [...NAMED, "--lease", "cluster"],
    code: 64,
    says: /lease "cluster" has no colon; wanted LOCKSPACE:KEY/,
  },
  { kind: "a lease without a key", args: [...NAMED, "--lease", "cluster:"], code: 64, says: /has no key/ },
  {
    kind: "a lease with a path as lockspace",
    args: [...NAMED, "--lease", "../x:db"],
    code: 64,
    says: /the lockspace "..\/x" must be 1 to 64/,
  },
  {
    kind: "a lease with a newline",
    args: [...NAMED, "--lease", "cluster:a\nb"],
    code: 64,
    says: /lease "cluster:a\\nb": the key has control characters/,
  },
  {
    kind: "a lease with a key of 256 characters",
    args: [...NAMED, "--lease", `cluster:${"k".repeat(256)}`],
    code: 64,
    says: /the key has 256 characters; at most 255/,
  },

  {
    kind: "a host id with a slash",
    args: [...NAMED, "--host-id", "a/b"],
    code: 64,
    says: /--host-id is "a\/b"; it must be/,
  },
  {
    kind: "an unknown word for --shared-storage",
    args: [...NAMED, "--shared-storage", "maybe"],
    code: 64,
    says: /--shared-storage is "maybe"; it must be one of warn, refuse, ignore/,
  },
  {
    kind: "an unknown word for --readonly",
    args: [...NAMED, "--readonly", "maybe"],
    code: 64,
    says: /--readonly is "maybe"; it must be one of lock, none/,
  },
  {
    kind: "an unknown word for --enforce",
    args: [...NAMED, "--enforce", "maybe"],
    code: 64,
    says: /--enforce is "maybe"; it must be one of refuse, warn/,
  },
  {
    kind: "a storage without a path",
    args: [...NAMED, "--storage", "san1"],
    code: 64,
    says: /--storage is "san1"; it must be ID=PATH/,
  },
  {
    kind: "a bad host id in the environment",
    args: NAMED,
    env: { LOCKVISOR_HOST_ID: "a b" },
    code: 78,
    says: /environment variable LOCKVISOR_HOST_ID is "a b"/,
  },
  {
    kind: "an unknown word for LOCKVISOR_SHARED_STORAGE",
    args: NAMED,
    env: { LOCKVISOR_SHARED_STORAGE: "maybe" },
    code: 78,
    says: /LOCKVISOR_SHARED_STORAGE is "maybe"; it must be one of/,
  },
  {
    kind: "an unknown word for LOCKVISOR_READONLY",
    args: NAMED,
    env: { LOCKVISOR_READONLY: "yes" },
    code: 78,
    says: /LOCKVISOR_READONLY is "yes"; it must be one of/,
  },
  {
    kind: "a storage without an id in the environment",
    args: NAMED,
    env: { LOCKVISOR_STORAGE: "=/images" },
    code: 78,
    says: /LOCKVISOR_STORAGE is "=\/images"; it must be ID=PATH/,
  },
];

for (const { kind, args, code, says, env } of STARTS) {
  Deno.test(`bad input, ${code}: ${kind}`, async () => {
    await using world = await World.create();
    const words = typeof args === "function" ? await args(world) : args;
    await assertNotStarted(world, words, { code, says }, env === undefined ? {} : { env });
  });
}

/** Bad words for other commands, whole. */
const COMMANDS: BadInput[] = [
  { kind: "no command", args: [], code: 64, says: /which command\? see: lockvisor --help/ },
  { kind: "an unknown command", args: ["explode"], code: 64, says: /there is no command "explode"/ },
  {
    kind: "help on an unknown command",
    args: ["help", "explode"],
    code: 64,
    says: /there is no command "explode"/,
  },
  {
    kind: "run without the guest's command",
    args: ["run", ...NAMED],
    code: 64,
    says: /no command is given; add --/,
  },
  { kind: "run with nothing after --", args: ["run", ...NAMED, "--"], code: 64, says: /no command is given/ },
  { kind: "init without a directory", args: ["init"], code: 64, says: /init: DIR is missing/ },
  { kind: "init with two directories", args: ["init", "a", "b"], code: 64, says: /unexpected argument "b"/ },
  {
    kind: "init on a directory with other files",
    args: async (world) => {
      await Deno.mkdir(`${world.directory}/full`);
      await world.disk("full/x");
      return ["init", "full"];
    },
    code: 65,
    says: /cannot make \/.*\/full a lockspace: it holds other files/,
  },
  {
    kind: "init below a file",
    args: async (world) => ["init", `${await world.disk("a")}/b`],
    code: 73,
    says: /cannot create \/.*\/a\/b: a component of it is not a directory/,
  },
  { kind: "check without a disk", args: ["check"], code: 64, says: /name at least one --disk or --lease/ },
  { kind: "inspect without a disk", args: ["inspect"], code: 64, says: /inspect: .* is missing/ },
  { kind: "inspect on a missing disk", args: ["inspect", "./none"], code: 65, says: /\/none does not exist/ },
  {
    kind: "status of an unknown guest",
    args: ["status", "vm9"],
    code: 65,
    says: /no guest "vm9" runs on this host/,
  },
  {
    kind: "status of a guest with a hostile name",
    args: ["status", "vm\n\u001b[2J"],
    code: 65,
    says: /no guest "vm\\n\\u001b\[2J" runs/,
  },
  { kind: "version with an argument", args: ["version", "x"], code: 64, says: /unexpected argument "x"/ },
];

for (const { kind, args, code, says } of COMMANDS) {
  Deno.test(`bad input, ${code}: ${kind}`, async () => {
    await using world = await World.create();
    const words = typeof args === "function" ? await args(world) : args;
    await assertRefused(world, words, { code, says });
  });
}

/** Faults in the configuration file: the message names file, line and key. */
const CONFIGURATIONS: { kind: string; text: string; says: RegExp }[] = [
  {
    kind: "an unknown key",
    text: `# ours\nlokspace = "/x"\n`,
    says: /\/lockvisor\.toml:2: unknown key "lokspace"; did you mean "lockspace"\?/,
  },
  {
    kind: "a number for a text",
    text: `host-id = 7\n`,
    says: /\/lockvisor\.toml:1: key "host-id" must be a text/,
  },
  {
    kind: "a text for tables",
    text: `storage = "/images"\n`,
    says: /\/lockvisor\.toml:1: key "storage" must be tables/,
  },
  {
    kind: "a storage without an id",
    text: `\n[[storage]]\npath = "/images"\n`,
    says: /\/lockvisor\.toml:2: \[\[storage\]\] has no "id"/,
  },
  {
    kind: "an unknown key of a storage",
    text: `[[storage]]\npath = "/images"\nid = "san1"\nmode = "rw"\n`,
    says: /\/lockvisor\.toml:4: unknown key "storage\.mode"/,
  },
  {
    kind: "an unknown word",
    text: `shared-storage = "maybe"\n`,
    says: /\/lockvisor\.toml:1: shared-storage is "maybe"; it must be one of/,
  },
  {
    kind: "a relative path",
    text: `runtime-dir = "here"\n`,
    says: /\/lockvisor\.toml:1: runtime-dir is "here"; it must be an absolute path/,
  },
  { kind: "a syntax error", text: `lockspace = "/x\n`, says: /\/lockvisor\.toml:1: not valid TOML/ },
  {
    kind: "a key twice",
    text: `host-id = "a"\nhost-id = "b"\n`,
    says: /\/lockvisor\.toml:2: not valid TOML/,
  },
];

for (const { kind, text, says } of CONFIGURATIONS) {
  Deno.test(`bad input, 78: configuration with ${kind}`, async () => {
    await using world = await World.create();
    await Deno.writeTextFile(world.configFile, text);
    // Another flag or variable for the same setting does not hide the fault in the file.
    const env = { LOCKVISOR_HOST_ID: "", LOCKVISOR_SHARED_STORAGE: "", LOCKVISOR_RUNTIME_DIR: "" };
    await assertNotStarted(world, [...NAMED, "--lease", "a:b"], { code: 78, says }, { env });
  });
}

Deno.test("bad input, 78: configuration that is not UTF-8", async () => {
  await using world = await World.create();
  await Deno.writeFile(world.configFile, new Uint8Array([0xff, 0xfe]));
  await assertNotStarted(world, NAMED, { code: 78, says: /\/lockvisor\.toml: not valid UTF-8/ });
});

Deno.test("bad input, 78: a configuration file that is named and missing", async () => {
  await using world = await World.create();
  const missing = `${world.directory}/none.toml`;
  const says = /cannot read the configuration file \/.*\/none\.toml: no such file.*named by --config/;
  await assertNotStarted(world, [...NAMED, "--config", missing], { code: 78, says });
  const byVariable = /\/none\.toml: no such file.*named by LOCKVISOR_CONFIG/;
  await assertNotStarted(world, NAMED, { code: 78, says: byVariable }, {
    env: { LOCKVISOR_CONFIG: missing },
  });
});

Deno.test("bad input, 78: a directory as configuration file", async () => {
  await using world = await World.create();
  const says = /cannot read the configuration file/;
  await assertNotStarted(world, [...NAMED, "--config", world.directory], { code: 78, says });
});

Deno.test("bad input, 65: a socket as disk", async () => {
  await using world = await World.create();
  using _listener = Deno.listen({ transport: "unix", path: `${world.directory}/socket` });
  const says = /disk \/.*\/socket is a socket/;
  await assertNotStarted(world, [...NAMED, "--disk", "socket"], { code: 65, says });
});

Deno.test("bad input, 77: a disk that the user may not read", async () => {
  await using world = await World.create();
  const nobody = 65534;
  const disk = await world.disk("secret");
  await Deno.chmod(disk, 0o600);
  // The user gets a world of its own, and a copy of the program: it may not be able to reach ours.
  const binary = `${world.directory}/lockvisor`;
  await Deno.copyFile(BINARY, binary);
  const chowned = await world.execute("chown", ["-R", `${nobody}`, "."]);
  assert.equal(chowned.code, 0, `the tests run as root: ${chowned.stderr}`);
  await Deno.chown(disk, 0, 0);
  const execute = (args: string[]) =>
    world.execute("setpriv", ["--reuid", `${nobody}`, "--clear-groups", binary, ...args]);
  const says = /disk \/.*\/secret: permission denied/;
  await assertNotStarted(world, [...NAMED, "--disk", disk], { code: 77, says }, { execute });
  await Deno.chown(disk, nobody, null);
  const started = await execute(["run", ...NAMED, "--disk", disk, "--", "true"]);
  assert.equal(started.code, 0, started.stderr);
});

Deno.test("a path with commas, newlines and escapes is a disk like any other", async () => {
  await using world = await World.create();
  for (const name of ["a,b", ",,", "line\nbreak", "\u001b[31mred", "\u202eback", " ", "--", "x=y"]) {
    const disk = await world.disk(name);
    const option = disk.replaceAll(",", ",,");
    const guest = await world.startRunning(["run", ...NAMED, "--disk", option, "--", "sleep", "60"]);
    const refused = await world.run(["run", "--name", "vm2", "--disk", option, "--", "true"]);
    assert.equal(refused.code, 75, refused.stderr);
    assert.match(
      refused.stderr,
      /^lockvisor: disk [^\p{Cc}\u202e]+ is locked by guest "vm1"\P{Cc}*\n$/u,
    );
    await guest.kill();
  }
});

Deno.test("an argument that is not UTF-8 ends in the runtime, before any of our code, and changes nothing", async () => {
  await using world = await World.create();
  const before = await everything(world);
  const script = `exec "$0" run --name "$(printf 'vm\\377')" -- touch started`;
  const result = await world.execute("sh", ["-c", script, BINARY]);
  assert.notEqual(result.code, 0);
  assert.deepEqual(await everything(world), before);
});

Deno.test("an environment that is not UTF-8 is the guest's own business", async () => {
  await using world = await World.create();
  const script = `FOO=$(printf 'x\\377') exec "$0" run --name vm1 -- sh -c 'printf %s "$FOO" | od -An -tx1'`;
  const result = await world.execute("sh", ["-c", script, BINARY]);
  assert.equal(result.code, 0, result.stderr);
  assert.equal(result.stdout.trim(), "78 ff");
});

Deno.test("bad input, 78: a setting in the environment that is not UTF-8", async () => {
  await using world = await World.create();
  const script = `LOCKVISOR_HOST_ID=$(printf 'x\\377') exec "$0" "$@"`;
  const execute = (args: string[]) => world.execute("sh", ["-c", script, BINARY, ...args]);
  await assertNotStarted(world, NAMED, { code: 78, says: /LOCKVISOR_HOST_ID/ }, { execute });
});

Deno.test("bad input, 74: a working directory that is not UTF-8, and a disk relative to it", async () => {
  await using world = await World.create();
  const there =
    `dir=$(printf 'dir\\377'); mkdir -p "$dir" && : >> "$dir/disk" && cd "$dir" && exec "$0" "$@"`;
  const execute = (args: string[]) => world.execute("sh", ["-c", there, BINARY, ...args]);
  await execute(["version"]);
  const says = /cannot find the current directory/;
  await assertNotStarted(world, [...NAMED, "--disk", "disk"], { code: 74, says }, { execute });
  const absolute = await execute(["run", ...NAMED, "--disk", await world.disk("a"), "--", "true"]);
  assert.equal(absolute.code, 0, absolute.stderr);
});

Deno.test("bad input, 74: results that cannot be written", async () => {
  await using world = await World.create();
  const execute = (args: string[]) =>
    world.execute("sh", ["-c", `exec "$0" "$@" > /dev/full`, BINARY, ...args]);
  await assertRefused(world, ["version"], { code: 74, says: /cannot write/ }, { execute });
});
