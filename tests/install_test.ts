import assert from "node:assert/strict";
import { AGENT_KEYS, readConfig, SETTING_KEYS } from "../lib/config/config_file.ts";
import { mergeAgentSettings } from "../lib/config/agent_settings.ts";
import { mergeSettings, type SettingSources } from "../lib/config/settings.ts";
import { ROOT } from "../scripts/project.ts";
import { makeDist } from "./support/installation.ts";

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** What is installed, with its mode: nothing but root's is writable, whatever umask the installer has. */
const INSTALLED: Record<string, string> = {
  "/etc/lockvisor/guests": "755",
  "/etc/lockvisor/hooks.d": "755",
  "/etc/lockvisor/lockvisor.toml": "644",
  "/opt/lv/bin/lockvisor": "755",
  "/opt/lv/lib/systemd/system/lockvisor-guest@.service": "644",
  "/opt/lv/lib/systemd/system/lockvisor.service": "644",
  "/opt/lv/share/bash-completion/completions/lockvisor": "644",
  "/opt/lv/share/doc/lockvisor/examples/guest.conf": "644",
  "/opt/lv/share/doc/lockvisor/examples/lockvisor.toml": "644",
  "/opt/lv/share/fish/vendor_completions.d/lockvisor.fish": "644",
  "/opt/lv/share/man/man8/lockvisor.8": "644",
  "/opt/lv/share/zsh/site-functions/_lockvisor": "644",
};

/** What uninstall leaves: it is the host's. */
const LEFT = Object.fromEntries(Object.entries(INSTALLED).filter(([path]) => path.startsWith("/etc/")));

/** A folder that stands for a host's /, and what is installed in it, removed at the end. */
class Destination implements AsyncDisposable {
  private constructor(readonly directory: string) {}

  static async create(): Promise<Destination> {
    const destination = new Destination(await Deno.makeTempDir({ prefix: "lockvisor-test-" }));
    await makeDist(destination.dist);
    return destination;
  }

  get dist(): string {
    return `${this.directory}/dist`;
  }

  get root(): string {
    return `${this.directory}/root`;
  }

  /** Runs one of the two scripts. */
  async script(name: "install" | "uninstall", env: Record<string, string> = {}): Promise<Ended> {
    const { code, stdout, stderr } = await new Deno.Command("sh", {
      args: ["-c", 'umask 077; exec "$0"', `${ROOT}/scripts/${name}.sh`],
      clearEnv: true,
      env: { PATH: "/usr/bin:/bin", DESTDIR: this.root, PREFIX: "/opt/lv", DIST: this.dist, ...env },
      cwd: "/",
      stdin: "null",
    }).output();
    const decoder = new TextDecoder();
    return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  }

  async must(name: "install" | "uninstall"): Promise<string> {
    const { code, stdout, stderr } = await this.script(name);
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    return stdout;
  }

  /** Files and empty folders below it, with their modes; and every folder must let everybody through. */
  tree(path = ""): Record<string, string> {
    const entries = [...Deno.readDirSync(this.root + path)];
    const status = Deno.statSync(this.root + path);
    const mode = (status.mode! & 0o7777).toString(8);
    if (path !== "") assert.equal(mode, "755", path);
    const below = entries.map(({ name, isDirectory }): Record<string, string> => {
      const child = `${path}/${name}`;
      if (isDirectory) return this.tree(child);
      return { [child]: (Deno.lstatSync(this.root + child).mode! & 0o7777).toString(8) };
    });
    return entries.length === 0 ? { [path]: mode } : Object.assign({}, ...below);
  }

  /** Only what exists of these. */
  files(): Record<string, string> {
    return Object.fromEntries(Object.entries(this.tree()).filter(([path]) => path in INSTALLED));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }
}

Deno.test("install: everything is in its place, for everybody to read and for root alone to write", async () => {
  await using destination = await Destination.create();
  await destination.must("install");
  assert.deepEqual(destination.tree(), INSTALLED);
  const read = (path: string) => Deno.readTextFile(destination.root + path);
  for (const unit of ["lockvisor.service", "lockvisor-guest@.service"]) {
    const text = await read(`/opt/lv/lib/systemd/system/${unit}`);
    assert.match(text, /^ExecStart=\/opt\/lv\/bin\/lockvisor (daemon|run --name %i \$LOCKS -- \$COMMAND)$/m);
    assert.ok(!text.includes("@PREFIX@"), unit);
  }
  for (const shell of ["bash-completion/completions/lockvisor", "zsh/site-functions/_lockvisor"]) {
    assert.match(await read(`/opt/lv/share/${shell}`), /_lockvisor/);
  }
  assert.match(await read("/opt/lv/share/fish/vendor_completions.d/lockvisor.fish"), /complete -c lockvisor/);
});

Deno.test("install: again it changes nothing, and an edited configuration stays", async () => {
  await using destination = await Destination.create();
  await destination.must("install");
  const configuration = `${destination.root}/etc/lockvisor/lockvisor.toml`;
  await Deno.writeTextFile(configuration, 'host-id = "mine"\n');
  await Deno.chmod(configuration, 0o600);
  await Deno.writeTextFile(`${destination.root}/etc/lockvisor/hooks.d/mine`, "");

  assert.match(await destination.must("install"), /^kept: .*\/etc\/lockvisor\/lockvisor\.toml$/m);
  const { "/etc/lockvisor/hooks.d": _, ...others } = INSTALLED;
  assert.deepEqual(destination.files(), { ...others, "/etc/lockvisor/lockvisor.toml": "600" });
  assert.equal(await Deno.readTextFile(configuration), 'host-id = "mine"\n');
  const beside = Object.keys(destination.tree()).filter((path) => !(path in INSTALLED));
  assert.deepEqual(beside, ["/etc/lockvisor/hooks.d/mine"]);
});

Deno.test("install: the program is exchanged, not overwritten, while it runs", async () => {
  await using destination = await Destination.create();
  await destination.must("install");
  const program = `${destination.root}/opt/lv/bin/lockvisor`;
  const before = await Deno.stat(program);
  // A program that runs cannot be written (ETXTBSY); this one runs until its input ends.
  await Deno.copyFile("/bin/cat", program);
  await Deno.chmod(program, 0o755);
  const running = new Deno.Command(program, { stdin: "piped", stdout: "null" }).spawn();
  try {
    await destination.must("install");
    const after = await Deno.stat(program);
    assert.notEqual(after.ino, before.ino);
    assert.equal(after.size, before.size);
    assert.match(Deno.readLinkSync(`/proc/${running.pid}/exe`), / \(deleted\)$/);
  } finally {
    await running.stdin.close();
    await running.status;
  }
});

Deno.test("uninstall: takes away what was installed, again does nothing, and leaves what is the host's", async () => {
  await using destination = await Destination.create();
  await destination.must("install");
  for (const path of ["/var/lib/lockvisor/lockspace", "/run/lockvisor/guests"]) {
    await Deno.mkdir(destination.root + path, { recursive: true });
    await Deno.chmod(destination.root + path, 0o755);
  }
  await destination.must("uninstall");
  assert.deepEqual(destination.files(), LEFT);
  await destination.must("uninstall");
  assert.deepEqual(destination.files(), LEFT);
  for (const path of ["/var/lib/lockvisor/lockspace", "/run/lockvisor/guests"]) {
    assert.ok((await Deno.stat(destination.root + path)).isDirectory);
  }
  const left = Object.keys(destination.tree()).filter((path) => path.startsWith("/opt/"));
  assert.deepEqual(left.filter((path) => path.includes("lockvisor")), []);
});

Deno.test("install: one line says what is missing or wrong, and nothing is installed", async () => {
  await using destination = await Destination.create();
  const refused = async (env: Record<string, string>, code: number, says: RegExp) => {
    const ended = await destination.script("install", env);
    assert.equal(ended.code, code, ended.stderr);
    assert.match(ended.stderr, says);
    assert.equal(ended.stderr.split("\n").length, 2, ended.stderr);
    assert.throws(() => Deno.statSync(destination.root), Deno.errors.NotFound);
  };
  await refused({ PREFIX: "opt" }, 64, /^install: PREFIX is "opt"; it must be an absolute path$/m);
  await refused({ PREFIX: "/o|p" }, 64, /^install: PREFIX is "\/o\|p"; it may have /m);
  await Deno.remove(`${destination.dist}/lockvisor.8`);
  await refused({}, 69, /^install: \/.*\/dist\/lockvisor\.8 is not there; make it with: deno task dist$/m);
  await Deno.remove(`${destination.dist}/lockvisor`);
  await refused({}, 69, /^install: \/.*\/dist\/lockvisor is not there; make it with: deno task dist$/m);
});

Deno.test("configuration: the default one says nothing, and shows every key as it may be written", async () => {
  const file = `${ROOT}/etc/lockvisor.toml`;
  const text = await Deno.readTextFile(file);
  for (const line of text.split("\n")) assert.match(line, /^(#.*)?$/);

  const shown = text.replaceAll(/^# (?=\[|[a-z-]+ = )/gm, "");
  const config = readConfig(shown, file);
  assert.deepEqual(Object.keys(config.values).sort(), [...SETTING_KEYS].sort());
  assert.deepEqual(Object.keys(config.agent).sort(), [...AGENT_KEYS].sort());
  assert.equal(config.storage.length, 1);

  // What it gives as defaults are the defaults; the others are named as examples.
  const sources: SettingSources = { flags: {}, effectiveUid: 0, environment: () => undefined };
  const nothing = { values: {}, storage: [], agent: {} };
  const settings = mergeSettings(sources, config, () => "machine");
  assert.deepEqual(
    { ...settings, lockspace: settings.lockspace.path, hostId: "machine", storage: [] },
    (({ lockspace, ...others }) => ({ ...others, lockspace: lockspace.path }))(
      mergeSettings(sources, nothing, () => "machine"),
    ),
  );
  const agent = { sources, flags: {}, runtimeDir: "/run/lockvisor", listening: "loopback" } as const;
  assert.deepEqual(
    { ...mergeAgentSettings(agent, config), listen: undefined },
    mergeAgentSettings(agent, nothing),
  );
});
