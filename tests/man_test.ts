import assert from "node:assert/strict";
import { join } from "node:path";
import { COMMANDS } from "../lib/cli/commands.ts";
import { type CommandDefinition, SETTING_OPTIONS } from "../lib/cli/definition.ts";
import { EXIT_STATUSES, optionUsage, usageOf } from "../lib/cli/help.ts";
import { manualPage } from "../lib/cli/manual_page.ts";
import { DIST, ROOT } from "../scripts/project.ts";

interface Output {
  code: number;
  stdout: string;
  stderr: string;
}

async function output(program: string, args: string[], env: Record<string, string> = {}): Promise<Output> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args, env, stdin: "null" }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Does something with a file that holds a page. */
async function withPage<Result>(text: string, action: (path: string) => Promise<Result>): Promise<Result> {
  const path = await Deno.makeTempFile({ prefix: "lockvisor-test-", suffix: ".8" });
  try {
    await Deno.writeTextFile(path, text);
    return await action(path);
  } finally {
    await Deno.remove(path);
  }
}

/** The page as a reader sees it, on lines that are wide enough for every usage; spaces as single ones. */
async function shown(text: string): Promise<string> {
  const env = { MANWIDTH: "300", LC_ALL: "C.UTF-8", MANPAGER: "cat", MAN_KEEP_FORMATTING: "" };
  const { code, stdout, stderr } = await withPage(text, (path) => output("man", ["-l", path], env));
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  return stdout.replaceAll(/ +/g, " ");
}

const PAGE = manualPage(COMMANDS, "1.2.3");

Deno.test("manual: neither groff nor man has anything to warn of", async () => {
  const silent = { code: 0, stdout: "", stderr: "" };
  for (const width of ["60", "78", "120"]) {
    const args = ["-man", "-ww", "-b", "-z", "-Tutf8", `-rLL=${width}n`];
    assert.deepEqual(await withPage(PAGE, (path) => output("groff", [...args, path])), silent, width);
  }
  const args = ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"];
  const { code, stderr } = await withPage(PAGE, (path) => output("man", [...args, path]));
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
});

Deno.test("manual: it has every section, in the usual order", async () => {
  const headings = (await shown(PAGE)).split("\n").filter((line) => /^[A-Z]/.test(line)).slice(1);
  assert.deepEqual(headings, [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "COMMANDS",
    "SETTINGS",
    "EXIT STATUS",
    "FILES",
    "ENVIRONMENT",
    "EXAMPLES",
    "SEE ALSO",
  ]);
});

Deno.test("manual: it tells all that the help tells", async () => {
  const text = await shown(PAGE);
  for (const command of COMMANDS) {
    assert.ok(text.includes(`\n ${usageOf(command)}\n`), `synopsis of ${command.name}`);
    const from = text.indexOf(`\n ${usageOf(command).replace("lockvisor ", "")}\n`);
    assert.ok(from > 0, `heading of ${command.name}`);
    const section = text.slice(from).split(/\n [a-z ]+ \[OPTION\]|\nSETTINGS/, 2).join("");
    for (const option of command.options) {
      assert.match(section, new RegExp(`\n ${RegExp.escape(optionUsage(option))}( |\n)`), command.name);
      assert.ok(section.includes(option.summary), `${command.name}: ${option.summary}`);
      for (const choice of option.choices ?? []) assert.ok(section.includes(choice));
    }
  }
  for (const option of SETTING_OPTIONS) assert.ok(text.includes(`\n ${optionUsage(option)}\n`), option.name);
  for (const [status, meaning] of EXIT_STATUSES) {
    assert.match(text, new RegExp(`\n ${RegExp.escape(status)}\\s+${RegExp.escape(meaning)}`));
  }
  for (const variable of ["LOCKVISOR_CONFIG", "LOCKVISOR_LOCKSPACE", "LOCKVISOR_STORAGE", "NO_COLOR"]) {
    assert.ok(text.slice(text.indexOf("\nENVIRONMENT")).includes(variable), variable);
  }
  assert.match(text, /lockvisor 1\.2\.3/);
});

Deno.test("manual: what has a meaning to roff comes out as it was written", async () => {
  const awkward = `.TH 'x' \\fB"quoted"\\n -- --a-b ~ ^ \` \\`;
  const command: CommandDefinition = {
    name: "awkward",
    summary: "to be shown",
    arguments: [],
    options: [{ name: "it", summary: awkward }, { name: "at", summary: "'single" }],
    details: [awkward, ".so /etc/passwd", "'tis"],
    run: () => 0,
  };
  const page = manualPage([command], "1");
  const checked = await withPage(page, (path) => output("groff", ["-man", "-ww", "-z", "-Tutf8", path]));
  assert.deepEqual(checked, { code: 0, stdout: "", stderr: "" });
  const text = await shown(page);
  assert.equal(text.split(awkward).length, 3, text);
  assert.ok(text.includes("\n .so /etc/passwd\n"));
  assert.ok(text.includes("\n 'tis\n"));
});

Deno.test("manual: the task writes it for man -l", async () => {
  const { code, stdout, stderr } = await output(Deno.execPath(), ["run", "-A", join(ROOT, "scripts/man.ts")]);
  assert.equal(code, 0, stderr);
  assert.equal(stdout, `${join(DIST, "lockvisor.8")}\n`);
  assert.match(await Deno.readTextFile(join(DIST, "lockvisor.8")), /^\.TH LOCKVISOR 8 /);
});
