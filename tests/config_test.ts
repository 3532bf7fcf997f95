import assert from "node:assert/strict";
import { nearest, readConfig } from "../lib/config/config_file.ts";
import { loadSettings, type SettingFlags, type Settings } from "../lib/config/settings.ts";
import { type ErrorCode, LockvisorError } from "../lib/errors.ts";

/** What a test gives to the settings: nothing of the machine's own gets in. */
interface World {
  flags?: SettingFlags;
  environment?: Record<string, string>;
  effectiveUid?: number;
  files?: Record<string, string | Uint8Array | Error>;
}

const FILE = "/etc/lockvisor/lockvisor.toml";

function load({ flags = {}, environment = {}, effectiveUid = 0, files = {} }: World): Promise<Settings> {
  const all: NonNullable<World["files"]> = {
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    ...files,
  };
  return loadSettings({
    flags,
    environment: (name) => environment[name],
    effectiveUid,
    cwd: "/here",
    readFile: (path) => {
      const content = all[path];
      if (content === undefined) throw Object.assign(new Error("no such file"), { code: "ENOENT" });
      if (content instanceof Error) throw content;
      return typeof content === "string" ? new TextEncoder().encode(content) : content;
    },
  });
}

async function refusal(world: World): Promise<{ code: ErrorCode; message: string }> {
  try {
    await load(world);
  } catch (error) {
    assert.ok(error instanceof LockvisorError, String(error));
    return { code: error.code, message: error.message };
  }
  throw new assert.AssertionError({ message: `accepted: ${JSON.stringify(world)}` });
}

Deno.test("settings: what root gets when nothing is set", async () => {
  assert.deepEqual(await load({}), {
    lockspace: { path: "/var/lib/lockvisor/lockspace", origin: "default" },
    runtimeDir: "/run/lockvisor",
    hostId: "0123456789abcdef0123456789abcdef",
    sharedStorage: "warn",
    readonlyDisks: "lock",
    enforce: "refuse",
    storage: [],
  });
});

Deno.test("settings: another user's directories follow the XDG specification", async () => {
  const own = { HOME: "/home/u", XDG_RUNTIME_DIR: "/run/user/7" };
  const cases: [Record<string, string>, string, string][] = [
    [own, "/home/u/.local/state/lockvisor/lockspace", "/run/user/7/lockvisor"],
    [{ ...own, XDG_STATE_HOME: "/s/" }, "/s/lockvisor/lockspace", "/run/user/7/lockvisor"],
    [
      { ...own, XDG_STATE_HOME: "relative" },
      "/home/u/.local/state/lockvisor/lockspace",
      "/run/user/7/lockvisor",
    ],
    [{ ...own, XDG_STATE_HOME: "" }, "/home/u/.local/state/lockvisor/lockspace", "/run/user/7/lockvisor"],
    [{ ...own, HOME: "/" }, "/.local/state/lockvisor/lockspace", "/run/user/7/lockvisor"],
  ];
  for (const [environment, lockspace, runtimeDir] of cases) {
    const settings = await load({ environment, effectiveUid: 1000 });
    assert.deepEqual([settings.lockspace, settings.runtimeDir], [
      { path: lockspace, origin: "default" },
      runtimeDir,
    ]);
  }
});

Deno.test("settings: a missing HOME or XDG_RUNTIME_DIR is an error only where it is needed", async () => {
  const noRuntime = await refusal({ environment: { HOME: "/home/u" }, effectiveUid: 1000 });
  assert.equal(noRuntime.code, "config");
  assert.match(noRuntime.message, /XDG_RUNTIME_DIR .*--runtime-dir/);
  const noHome = await refusal({ environment: { XDG_RUNTIME_DIR: "/r" }, effectiveUid: 1000 });
  assert.equal(noHome.code, "config");
  assert.match(noHome.message, /HOME .*--lockspace/);
  const settings = await load({ flags: { lockspace: "/l", runtimeDir: "/r" }, effectiveUid: 1000 });
  assert.deepEqual(settings.lockspace, { path: "/l", origin: "configured" });
});

Deno.test("settings: a flag goes before the variable, that before the file, that before the default", async () => {
  const toml = `
lockspace = "/file/l"
runtime-dir = "/file/r"
host-id = "file"
shared-storage = "refuse"
readonly = "none"
enforce = "warn"
[[storage]]
id = "file"
path = "/file/s"
`;
  const environment = {
    LOCKVISOR_LOCKSPACE: "/variable/l",
    LOCKVISOR_RUNTIME_DIR: "/variable/r",
    LOCKVISOR_HOST_ID: "variable",
    LOCKVISOR_SHARED_STORAGE: "ignore",
    LOCKVISOR_READONLY: "lock",
    LOCKVISOR_ENFORCE: "refuse",
    LOCKVISOR_STORAGE: "variable=/variable/s",
  };
  const flags = {
    lockspace: "/flag/l",
    runtimeDir: "/flag/r",
    hostId: "flag",
    sharedStorage: "warn",
    readonly: "none",
    enforce: "warn",
    storage: ["flag=/flag/s"],
  };
  const expected = (from: string, sharedStorage: string, readonlyDisks: string, enforce: string) => ({
    lockspace: { path: `/${from}/l`, origin: "configured" },
    runtimeDir: `/${from}/r`,
    hostId: from,
    sharedStorage,
    readonlyDisks,
    enforce,
    storage: [{ path: `/${from}/s`, id: from }],
  });
  const files = { [FILE]: toml };
  assert.deepEqual(await load({ files }), expected("file", "refuse", "none", "warn"));
  assert.deepEqual(await load({ files, environment }), expected("variable", "ignore", "lock", "refuse"));
  assert.deepEqual(await load({ files, environment, flags }), expected("flag", "warn", "none", "warn"));
  const empty = Object.fromEntries(Object.keys(environment).map((name) => [name, ""]));
  assert.deepEqual(await load({ files, environment: empty }), expected("file", "refuse", "none", "warn"));
});

Deno.test("settings: flags and variables may give relative paths, the file may not", async () => {
  const settings = await load({
    flags: { lockspace: "./l/", storage: ["a=s//t", "b=../u"] },
    environment: { LOCKVISOR_RUNTIME_DIR: "r" },
  });
  assert.equal(settings.lockspace.path, "/here/l");
  assert.equal(settings.runtimeDir, "/here/r");
  assert.deepEqual(settings.storage, [{ path: "/here/s/t", id: "a" }, { path: "/here/../u", id: "b" }]);
  const { code, message } = await refusal({ files: { [FILE]: '\nlockspace = "l"\n' } });
  assert.equal(code, "config");
  assert.equal(message, `${FILE}:2: lockspace is "l"; it must be an absolute path`);
});

Deno.test("settings: storage in a variable is separated by semicolons, which a path doubles", async () => {
  const cases: [string, [string, string][]][] = [
    ["a=/x", [["a", "/x"]]],
    ["a=/x;b=/y", [["a", "/x"], ["b", "/y"]]],
    ["a=/x;;y;b=/z;", [["a", "/x;y"], ["b", "/z"]]],
    ["a=/x=y", [["a", "/x=y"]]],
    ["a=/x;a=/x;a=/y", [["a", "/x"], ["a", "/y"]]],
  ];
  for (const [value, expected] of cases) {
    const { storage } = await load({ environment: { LOCKVISOR_STORAGE: value } });
    assert.deepEqual(storage, expected.map(([id, path]) => ({ path, id })), value);
  }
});

Deno.test("settings: a bad flag is a usage error, a bad variable a configuration error; both are named", async () => {
  const cases: [World, ErrorCode, RegExp][] = [
    [{ flags: { lockspace: "" } }, "usage", /^--lockspace is ""; it must be a path$/],
    [{ flags: { config: "" } }, "usage", /^--config is ""/],
    [{ flags: { runtimeDir: "a\0b" } }, "usage", /^--runtime-dir is .*NUL/],
    [
      { flags: { sharedStorage: "maybe" } },
      "usage",
      /^--shared-storage is "maybe"; .*one of warn, refuse, ignore$/,
    ],
    [{ flags: { readonly: "yes" } }, "usage", /^--readonly is "yes"; it must be one of lock, none$/],
    [{ flags: { hostId: "-a" } }, "usage", /^--host-id is "-a"; it must be 1 to 64/],
    [{ flags: { hostId: "a:b" } }, "usage", /^--host-id/],
    [{ flags: { hostId: "a".repeat(65) } }, "usage", /^--host-id/],
    [{ flags: { storage: ["/images"] } }, "usage", /^--storage is "\/images"; it must be ID=PATH$/],
    [{ flags: { storage: ["=/images"] } }, "usage", /ID=PATH/],
    [{ flags: { storage: ["a="] } }, "usage", /^--storage is ""; it must be a path/],
    [{ flags: { storage: ["a b=/x"] } }, "usage", /^--storage is "a b"/],
    [
      { environment: { LOCKVISOR_READONLY: "x" } },
      "config",
      /^environment variable LOCKVISOR_READONLY is "x"/,
    ],
    [{ environment: { LOCKVISOR_HOST_ID: "a\nb" } }, "config", /LOCKVISOR_HOST_ID is "a\\nb"/],
    [{ environment: { LOCKVISOR_SHARED_STORAGE: "x" } }, "config", /LOCKVISOR_SHARED_STORAGE/],
    [{ environment: { LOCKVISOR_STORAGE: "x" } }, "config", /LOCKVISOR_STORAGE is "x"; it must be ID=PATH/],
  ];
  for (const [world, code, message] of cases) {
    const refused = await refusal(world);
    assert.equal(refused.code, code, JSON.stringify(world));
    assert.match(refused.message, message);
  }
});

Deno.test("settings: a wrong configuration file is refused with its line and key", async () => {
  const cases: [string, number, RegExp][] = [
    ["a = 1\n", 1, /unknown key "a"; the known keys are lockspace, runtime-dir, .*storage, agent$/],
    ['\n\nlockspce = "/x"\n', 3, /unknown key "lockspce"; did you mean "lockspace"\?$/],
    ['runtime_dir = "/x"\n', 1, /unknown key "runtime_dir"; did you mean "runtime-dir"\?$/],
    ['hostid = "x"\n', 1, /did you mean "host-id"\?/],
    ["__proto__ = 1\n", 1, /unknown key "__proto__"/],
    ["[lockspaces]\nx = 1\n", 1, /unknown key "lockspaces"; did you mean "lockspace"/],
    ['lockspace = "/x"\nlockspace = "/y"\n', 2, /not valid TOML: defining a key multiple times/],
    ['[[storage]]\npath = "/x"\nid = "a"\npath = "/y"\n', 4, /multiple times/],
    ["lockspace = 3\n", 1, /key "lockspace" must be a text in quotes, not integer/],
    ["host-id = true\n", 1, /key "host-id" must be a text in quotes, not boolean/],
    ["readonly = []\n", 1, /key "readonly" must be a text in quotes, not array/],
    ["readonly = {}\n", 1, /key "readonly" must be a text in quotes, not table/],
    ["host-id = 2026-01-01\n", 1, /not (local-)?date/],
    ['\n[lockspace]\npath = "/x"\n', 2, /key "lockspace" must be a text/],
    ['lockspace.path = "/x"\n', 1, /key "lockspace.path" must be a text, written as lockspace = /],
    ['[storage]\npath = "/x"\nid = "a"\n', 1, /written as \[\[storage\]\]/],
    ['storage.path = "/x"\n', 1, /written as \[\[storage\]\]/],
    ['storage = "/x"\n', 1, /written as \[\[storage\]\]/],
    ["storage = [1]\n", 1, /written as \[\[storage\]\]/],
    ['[[storage]]\npath = "/x"\n', 1, /has no "id"/],
    ['[[storage]]\nid = "x"\n', 1, /has no "path"/],
    ['[[storage]]\npath = "/x"\nid = "a"\nname = "b"\n', 4, /unknown key "storage.name"/],
    ['[[storage]]\npaht = "/x"\nid = "a"\n', 2, /unknown key "storage.paht"; did you mean "storage.path"\?/],
    ['[[storage]]\npath = "x"\nid = "a"\n', 2, /storage.path is "x"; it must be an absolute path/],
    ['[[storage]]\npath = "/x"\nid = "a/b"\n', 3, /storage.id is "a\/b"/],
    ['[[storage]]\npath = 1\nid = "a"\n', 2, /key "storage.path" must be a text/],
    ['shared-storage = "yes"\n', 1, /shared-storage is "yes"; it must be one of/],
    ['\nhost-id = ""\n', 2, /host-id is ""/],
    ['lockspace = ""\n', 1, /lockspace is ""; it must be a path/],
    ["lockspace = /x\n", 1, /not valid TOML/],
    ["\nlockspace =\n\n\n", 2, /not valid TOML/],
    ['lockspace = "/x\n', 1, /not valid TOML/],
    ["]\n", 1, /not valid TOML/],
    ['agent = "x"\n', 1, /key "agent" must be a table, written as \[agent\]/],
    ['[[agent]]\nsocket = "/x"\n', 1, /written as \[agent\]/],
    ['[agent]\nsokcet = "/x"\n', 2, /unknown key "agent.sokcet"; did you mean "agent.socket"\?/],
    ["[agent]\naudit-interval = 5\n", 2, /key "agent.audit-interval" must be a text in quotes/],
    ["[agent.socket]\n", 1, /written as \[agent\]/],
  ];
  for (const [text, line, message] of cases) {
    const refused = await refusal({ files: { [FILE]: text } });
    assert.equal(refused.code, "config", text);
    assert.match(refused.message, message, text);
    assert.ok(refused.message.startsWith(`${FILE}:${line}: `), `${JSON.stringify(text)}: ${refused.message}`);
  }
});

Deno.test("settings: a named file must exist, the default one need not", async () => {
  for (
    const [world, named] of [
      [{ flags: { config: "c.toml" } }, "--config"],
      [{ environment: { LOCKVISOR_CONFIG: "c.toml" } }, "LOCKVISOR_CONFIG"],
    ] as const
  ) {
    const refused = await refusal(world);
    assert.equal(refused.code, "config");
    assert.match(refused.message, /configuration file \/here\/c\.toml: no such file/);
    assert.ok(refused.message.includes(named), refused.message);
    const settings = await load({ ...world, files: { "/here/c.toml": 'host-id = "c"' } });
    assert.equal(settings.hostId, "c");
  }
  assert.equal((await load({ environment: { LOCKVISOR_CONFIG: "" } })).sharedStorage, "warn");
});

Deno.test("settings: an unreadable or unsuitable file", async () => {
  const denied = Object.assign(new Error("denied"), { code: "EACCES" });
  assert.equal((await refusal({ files: { [FILE]: denied } })).code, "permission");
  const notUtf8 = await refusal({ files: { [FILE]: new Uint8Array([0x61, 0xff]) } });
  assert.equal(notUtf8.code, "config");
  assert.match(notUtf8.message, /not valid UTF-8/);
  const directory = await Deno.makeTempDir({ prefix: "lockvisor-config-" });
  try {
    const sources = { environment: () => undefined, effectiveUid: 0, cwd: "/" };
    await assert.rejects(
      loadSettings({ ...sources, flags: { config: directory, hostId: "h" } }),
      (error) =>
        error instanceof LockvisorError && error.code === "config" && error.message.includes(directory),
    );
    await Deno.writeTextFile(`${directory}/c.toml`, '\ufeffreadonly = "none"\n');
    const settings = await loadSettings({
      ...sources,
      flags: { config: "c.toml", hostId: "h" },
      cwd: directory,
    });
    assert.equal(settings.readonlyDisks, "none");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("settings: without a usable machine id the host's id must be set", async () => {
  const unusable = ["", "\n", "uninitialized\n", "a b\n", Object.assign(new Error("no"), { code: "ENOENT" })];
  for (const content of unusable) {
    const files = { "/etc/machine-id": content };
    const refused = await refusal({ files });
    assert.equal(refused.code, "config");
    assert.match(refused.message, /\/etc\/machine-id .*set host-id .*LOCKVISOR_HOST_ID/);
    assert.equal((await load({ files, flags: { hostId: "hv-1.example" } })).hostId, "hv-1.example");
  }
});

Deno.test("configuration file: both ways to write storage, in their order", () => {
  const tables = '[[storage]]\npath = "/a"\nid = "1"\n\n[[storage]]\nid = "2"\npath = "/b"\n';
  const inline = 'storage = [{ path = "/a", id = "1" }, { id = "2", path = "/b" }]\n';
  for (const text of [tables, inline]) {
    const { storage } = readConfig(text, "f");
    assert.deepEqual(storage.map(({ path, id }) => [path.text, id.text]), [["/a", "1"], ["/b", "2"]]);
  }
  assert.deepEqual(readConfig("", "f"), { values: {}, storage: [], agent: {} });
  assert.deepEqual(readConfig("# nothing\n", "f"), { values: {}, storage: [], agent: {} });
});

Deno.test("configuration file: only a near word is suggested", () => {
  const known = ["lockspace", "runtime-dir", "id"];
  assert.equal(nearest("LockSpace", known), "lockspace");
  assert.equal(nearest("runtimedirectory", known), undefined);
  assert.equal(nearest("ib", known), "id");
  assert.equal(nearest("colour", known), undefined);
});
