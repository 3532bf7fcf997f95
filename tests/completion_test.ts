import assert from "node:assert/strict";
import { COMMANDS } from "../lib/cli/commands.ts";
import { SETTING_OPTIONS } from "../lib/cli/definition.ts";
import { BINARY, World } from "./support/world.ts";

/** The first word of each command. */
const NAMES = [...new Set(COMMANDS.map(({ name }) => name.split(" ")[0]!))];
/** The second words after "migrate". */
const MIGRATIONS = COMMANDS.flatMap(({ name }) => /^migrate (.*)/.exec(name)?.[1] ?? []);

/** A world with a file of each shell's script, two guests that run, and files to complete. */
class Desk implements AsyncDisposable {
  private constructor(readonly world: World) {}

  static async create(): Promise<Desk> {
    const world = await World.create();
    for (const shell of ["bash", "zsh", "fish"]) {
      const { code, stdout, stderr } = await world.run(["completion", shell]);
      assert.equal(code, 0, stderr);
      await Deno.writeTextFile(`${world.directory}/completion.${shell}`, stdout);
    }
    await Deno.mkdir(`${world.directory}/bin`);
    await Deno.symlink(BINARY, `${world.directory}/bin/lockvisor`);
    for (const name of ["disk one.img", "disk2.img"]) await world.disk(name);
    await Deno.mkdir(`${world.directory}/directory`);
    return new Desk(world);
  }

  async withGuests(): Promise<this> {
    for (const name of ["vm1", "vm two", "web:a"]) {
      await this.world.startRunning(["run", "--name", name, "--", "sleep", "600"]);
    }
    return this;
  }

  /** What bash offers for the last of the words as readline has cut them. */
  async bash(...words: string[]): Promise<string[]> {
    const script = `source completion.bash
      COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
      _lockvisor
      printf '%s\\n' "\${COMPREPLY[@]}"`;
    return await this.#offered("bash", ["--norc", "-c", script, "bash", "lockvisor", ...words]);
  }

  /** What fish offers for a line. */
  async fish(line: string): Promise<string[]> {
    const script = "source completion.fish; complete -C $argv[1]";
    const offered = await this.#offered("fish", ["--no-config", "-c", script, line]);
    return offered.map((text) => text.split("\t")[0]!);
  }

  /** What stands on the line of an interactive zsh after a tab: only a unique completion is put there. */
  async zsh(line: string): Promise<string> {
    const script = `zmodload zsh/zpty
      zpty shell zsh -f -i
      zpty -w shell "PS1= ; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -u -D; source completion.zsh; bindkey ^X show; zle -N show; show() { print -r -- \\"[[\\$BUFFER]]\\" > line; }; print ready > is-ready"
      for try in {1..400}; do [[ -e is-ready ]] && break; sleep 0.02; done
      zpty -w -n shell "$1"$'\\t\\x18'
      for try in {1..400}; do [[ -s line ]] && break; sleep 0.02; done
      cat line; rm -f line is-ready; zpty -d shell`;
    const [found] = await this.#offered("zsh", ["-f", "-c", script, "zsh", line]);
    return found?.replace(/^\[\[(.*)\]\]$/, "$1") ?? "";
  }

  async #offered(shell: string, args: string[]): Promise<string[]> {
    const PATH = `${this.world.directory}/bin:${Deno.env.get("PATH")}`;
    const { stdout, stderr } = await this.world.execute(shell, args, { env: { PATH, TERM: "dumb" } });
    assert.equal(stderr, "");
    return stdout.split("\n").filter((word) => word !== "").sort();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.world[Symbol.asyncDispose]();
  }
}

Deno.test("completion refuses a shell that it does not know", async () => {
  await using world = await World.create();
  const { code, stderr } = await world.run(["completion", "tcsh"]);
  assert.equal(code, 64);
  assert.equal(stderr, 'lockvisor: completion: "tcsh" is none of the shells: bash, zsh, fish\n');
});

for (const shell of ["bash", "zsh", "fish"]) {
  Deno.test(`completion ${shell}: the shell finds no fault in the script`, async () => {
    await using desk = await Desk.create();
    const { code, stderr } = await desk.world.execute(shell, ["-n", `completion.${shell}`]);
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  });
}

Deno.test("completion bash: commands and flags", async () => {
  await using desk = await Desk.create();
  const settings = SETTING_OPTIONS.map(({ name }) => `--${name}`);
  assert.deepEqual(await desk.bash(""), [...NAMES].sort());
  assert.deepEqual(await desk.bash("doc"), ["doctor"]);
  assert.deepEqual(await desk.bash("--ver"), ["--version"]);
  assert.deepEqual(
    await desk.bash("--lockspace", "/x", "doc"),
    ["doctor"],
    "a setting's value is no command",
  );
  assert.deepEqual(await desk.bash("--lockspace", "=", "/x", "doc"), ["doctor"]);
  for (const command of COMMANDS) {
    const wanted = [...command.options.map(({ name }) => `--${name}`), ...settings, "--help"].sort();
    assert.deepEqual(await desk.bash(...command.name.split(" "), "--"), wanted, command.name);
  }
  assert.deepEqual(await desk.bash("nonsense", "--"), []);
});

const DISKS = ["abort", "backup", "commit", "mirror", "plug", "snapshot", "unplug"];

Deno.test("completion: a command of two words, one after the other", async () => {
  await using desk = await (await Desk.create()).withGuests();
  assert.deepEqual(await desk.bash("migr"), ["migrate"]);
  assert.deepEqual(await desk.bash("migrate", ""), [...MIGRATIONS].sort());
  assert.deepEqual(await desk.bash("migrate", "pre"), ["prepare"]);
  assert.deepEqual(await desk.bash("--runtime-dir", "/x", "migrate", "pre"), ["prepare"]);
  assert.deepEqual(await desk.bash("migrate", "--"), ["--help"]);
  assert.deepEqual(await desk.bash("migrate", "complete", "--side", ""), ["in", "out"]);
  assert.deepEqual(await desk.bash("migrate", "complete", "vm1"), ["vm1"]);
  assert.deepEqual(await desk.bash("migrate", "complete", "vm1", ""), [], "it takes one");
  assert.deepEqual(await desk.bash("migrate", "in", "--ticket", "disk2"), ["disk2.img"]);
  assert.deepEqual(await desk.bash("migrate", "in", "--ticket", "x", "--", "lockvis"), ["lockvisor"]);
  assert.deepEqual(await desk.bash("migrate", "nonsense", "--"), []);
  assert.deepEqual(await desk.bash("disk", ""), DISKS);
  assert.deepEqual(await desk.bash("disk", "plug", "vm1", "disk2"), ["disk2.img"]);
  assert.deepEqual(await desk.bash("disk", "unplug", "vm1", "--time"), ["--timeout"]);
  assert.deepEqual(await desk.bash("disk", "mirror", "vm1", "disk2.img", "disk2"), ["disk2.img"]);
  assert.deepEqual(await desk.bash("disk", "mirror", "vm1", "--finish", ""), ["copy", "pivot"]);

  assert.deepEqual(await desk.fish("lockvisor migr"), ["migrate"]);
  assert.deepEqual(await desk.fish("lockvisor disk "), DISKS);
  assert.deepEqual(await desk.fish("lockvisor migrate "), [...MIGRATIONS].sort());
  assert.deepEqual(await desk.fish("lockvisor --lockspace /x migrate pre"), ["prepare"]);
  assert.deepEqual(await desk.fish("lockvisor migrate cleanup --y"), ["--yes"]);
  assert.deepEqual(await desk.fish("lockvisor migrate status --y"), []);
  assert.deepEqual(await desk.fish("lockvisor migrate cancel --side "), ["in", "out"]);
  assert.deepEqual(await desk.fish("lockvisor migrate cancel v"), ["vm two", "vm1"]);
  assert.deepEqual(await desk.fish("lockvisor migrate in --ticket disk2"), ["disk2.img"]);
  assert.deepEqual(await desk.fish("lockvisor migrate in -- lockvis"), ["lockvisor"]);

  assert.equal(await desk.zsh("lockvisor migr"), "lockvisor migrate ");
  assert.equal(await desk.zsh("lockvisor migrate pre"), "lockvisor migrate prepare ");
  assert.equal(await desk.zsh("lockvisor migrate cleanup --y"), "lockvisor migrate cleanup --yes ");
  assert.equal(await desk.zsh("lockvisor migrate cancel --side o"), "lockvisor migrate cancel --side out ");
  assert.equal(await desk.zsh("lockvisor migrate cancel web"), "lockvisor migrate cancel web:a ");
  assert.equal(
    await desk.zsh("lockvisor migrate in --ticket disk2"),
    "lockvisor migrate in --ticket disk2.img ",
  );
});

Deno.test("completion bash: values", async () => {
  await using desk = await Desk.create();
  assert.deepEqual(await desk.bash("run", "--on-lock-failure", ""), ["ignore", "kill", "pause"]);
  assert.deepEqual(await desk.bash("run", "--on-lock-failure", "=", "k"), ["kill"]);
  assert.deepEqual(await desk.bash("run", "--on-lock-failure", "="), ["ignore", "kill", "pause"]);
  assert.deepEqual(await desk.bash("completion", "z"), ["zsh"]);
  assert.deepEqual(await desk.bash("completion", "zsh", ""), [], "one is enough");
  assert.deepEqual(await desk.bash("run", "--disk", "dis"), ["disk one.img", "disk2.img"]);
  assert.deepEqual(await desk.bash("run", "--disk", "disk\\ o"), ["disk one.img"]);
  assert.deepEqual(await desk.bash("run", "--disk", "=", "disk2"), ["disk2.img"]);
  assert.deepEqual(await desk.bash("init", "d"), ["directory"], "no files");
  assert.deepEqual(await desk.bash("--runtime-dir", "dire"), ["directory"]);
  assert.deepEqual(await desk.bash("run", "--name", ""), []);
  assert.deepEqual(await desk.bash("run", "--wait", "--na"), ["--name"], "a value that may be left out");
});

Deno.test("completion bash: after -- it is a command of the user's own", async () => {
  await using desk = await Desk.create();
  assert.deepEqual(await desk.bash("run", "--name", "vm1", "--", "lockvis"), ["lockvisor"]);
  assert.deepEqual(await desk.bash("run", "--name", "vm1", "--", "cat", "disk2"), ["disk2.img"]);
});

Deno.test("completion bash: guests of the lockspace that the line names", async () => {
  await using desk = await (await Desk.create()).withGuests();
  assert.deepEqual(await desk.bash("status", ""), ["vm1", "vm\\ two", "web:a"].sort());
  assert.deepEqual(await desk.bash("status", "vm1"), ["vm1"]);
  assert.deepEqual(await desk.bash("status", "vm\\ "), ["vm\\ two"]);
  assert.deepEqual(await desk.bash("status", "--json", "web", ":", ""), ["a"], "what readline has cut off");
  assert.deepEqual(await desk.bash("status", "vm1", ""), [], "it takes one");
  const elsewhere = `${desk.world.directory}/directory`;
  assert.deepEqual(await desk.bash("--runtime-dir", elsewhere, "status", ""), []);
  assert.deepEqual(await desk.bash("status", "--runtime-dir", "=", elsewhere, ""), []);
  assert.deepEqual(await desk.bash("status", "--runtime-dir", `"${desk.world.runtimeDir}"`, "vm1"), ["vm1"]);
});

Deno.test("completion: every command that takes a guest offers the guests, and those that take a file, files", async () => {
  await using desk = await (await Desk.create()).withGuests();
  const takers = COMMANDS.filter((command) => command.arguments.some(({ name }) => name.includes("GUEST")));
  assert.deepEqual(takers.map(({ name }) => name).sort(), [
    "acquire",
    "attach",
    "break",
    "disk abort",
    "disk backup",
    "disk commit",
    "disk mirror",
    "disk plug",
    "disk snapshot",
    "disk unplug",
    "migrate cancel",
    "migrate complete",
    "migrate prepare",
    "migrate run",
    "migrate status",
    "pause",
    "reconcile",
    "release",
    "resume",
    "status",
    "stop",
    "wait",
  ]);
  for (const { name } of takers) {
    const words = name.split(" ");
    assert.deepEqual(await desk.bash(...words, "vm1"), ["vm1"], `bash: ${name}`);
    assert.deepEqual(
      await desk.bash(...words, "vm\\ "),
      [name === "break" ? "vm two" : "vm\\ two"],
      `bash: ${name}`,
    );
  }
  // One of each kind for the shells that take long: a guest, several, a guest or a file.
  for (const name of ["stop", "attach", "break"]) {
    assert.deepEqual(await desk.fish(`lockvisor ${name} v`), ["vm two", "vm1"], `fish: ${name}`);
    assert.equal(await desk.zsh(`lockvisor ${name} web`), `lockvisor ${name} web:a `, `zsh: ${name}`);
  }
  assert.deepEqual(await desk.bash("attach", "vm1", "web"), ["web:a"], "it takes several");
  for (const name of ["break", "inspect"]) {
    assert.deepEqual(await desk.bash(name, "disk2"), ["disk2.img"]);
    assert.deepEqual(await desk.fish(`lockvisor ${name} disk2`), ["disk2.img"]);
    assert.equal(await desk.zsh(`lockvisor ${name} disk2`), `lockvisor ${name} disk2.img `);
  }
  assert.deepEqual(await desk.bash("attach", "--on-lost", ""), ["kill", "leave", "pause"]);
  assert.deepEqual(await desk.bash("adopt", "--qmp", "disk2"), ["disk2.img"]);
});

Deno.test("completion fish: commands, flags, values, guests", async () => {
  await using desk = await (await Desk.create()).withGuests();
  assert.deepEqual(await desk.fish("lockvisor "), [...NAMES].sort());
  assert.deepEqual(await desk.fish("lockvisor --lockspace /x doc"), ["doctor"]);
  assert.deepEqual(await desk.fish("lockvisor run --on-lock-failure "), ["ignore", "kill", "pause"]);
  assert.deepEqual(await desk.fish("lockvisor gc --dry"), ["--dry-run"]);
  assert.deepEqual(await desk.fish("lockvisor doctor --dry"), []);
  assert.deepEqual(await desk.fish("lockvisor run --disk disk2"), ["disk2.img"]);
  assert.deepEqual(await desk.fish("lockvisor init d"), ["directory/"]);
  assert.deepEqual(await desk.fish("lockvisor completion f"), ["fish"]);
  assert.deepEqual(await desk.fish("lockvisor status "), ["vm two", "vm1", "web:a"]);
  assert.deepEqual(await desk.fish(`lockvisor --runtime-dir ${desk.world.directory}/directory status `), []);
});

Deno.test("completion zsh: commands, flags, values, guests, in an interactive shell", async () => {
  await using desk = await (await Desk.create()).withGuests();
  assert.equal(await desk.zsh("lockvisor doc"), "lockvisor doctor ");
  assert.equal(await desk.zsh("lockvisor --lockspace /x doc"), "lockvisor --lockspace /x doctor ");
  assert.equal(await desk.zsh("lockvisor gc --dry"), "lockvisor gc --dry-run ");
  assert.equal(await desk.zsh("lockvisor run --on-lock-failure k"), "lockvisor run --on-lock-failure kill ");
  assert.equal(await desk.zsh("lockvisor run --disk disk2"), "lockvisor run --disk disk2.img ");
  assert.equal(await desk.zsh("lockvisor completion f"), "lockvisor completion fish ");
  assert.equal(await desk.zsh("lockvisor status vm\\ "), "lockvisor status vm\\ two ");
  assert.equal(await desk.zsh("lockvisor status web"), "lockvisor status web:a ");
});
