import assert from "node:assert/strict";
import { join } from "node:path";
import { COMMANDS } from "../lib/cli/commands.ts";
import { AGENT_KEYS, readConfig, SETTING_KEYS } from "../lib/config/config_file.ts";
import { ROOT } from "../scripts/project.ts";
import {
  anchors,
  documents,
  fencedBlocks,
  ownLinks,
  prose,
  quoted,
  section,
  tableRows,
  textOf,
} from "./support/documents.ts";

/** The words in the first cells of a table's rows. */
function firstCells(document: string, heading: string): string[] {
  return tableRows(section(document, heading)).flatMap(([first]) => quoted(first!));
}

Deno.test("documents: every link within the project leads somewhere", () => {
  const links = documents().flatMap(ownLinks);
  assert.ok(links.length > 10, `only ${links.length} links were found`);
  for (const { document, target, file, anchor } of links) {
    const place = `${document}: ${target}`;
    assert.ok(Deno.statSync(join(ROOT, file)).isFile, place);
    if (anchor !== undefined) {
      assert.ok(anchors(file).includes(anchor), `${place}; there are ${anchors(file)}`);
    }
  }
});

Deno.test("documents: every file of the project that is named is there", () => {
  const words = documents().filter((document) => document !== "CHANGELOG.md")
    .flatMap((document) => quoted(prose(document)).map((word) => ({ document, word })));
  const named = words.filter(({ word }) =>
    /^(lib|scripts|tests|docs|plugins|systemd|etc)\/[\w./@-]+\.\w+$/.test(word)
  );
  assert.ok(named.length > 10, `only ${named.length} files were found`);
  for (const { document, word } of named) {
    assert.ok(Deno.statSync(join(ROOT, word)).isFile, `${document}: ${word}`);
  }
});

Deno.test("documents: every configuration that is shown can be read", () => {
  const blocks = documents().flatMap((document) => fencedBlocks(document, "toml"));
  assert.ok(blocks.length > 1);
  for (const { document, line, code } of blocks) readConfig(code, `${document}:${line}`);
});

Deno.test("documents: every command for the shell can be read by one", async () => {
  const blocks = documents().flatMap((document) => fencedBlocks(document, "sh"));
  assert.ok(blocks.length > 10);
  for (const { document, line, code } of blocks) {
    const child = new Deno.Command("sh", { args: ["-n"], stdin: "piped", stderr: "piped" }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(code));
    await writer.close();
    const { success, stderr } = await child.output();
    assert.ok(success, `${document}:${line}: ${new TextDecoder().decode(stderr)}`);
  }
});

Deno.test("README: its tables have every command, setting and task, and no other", () => {
  const commands = firstCells("README.md", "## Commands").flatMap((word) =>
    /^lockvisor ((?:migrate|disk) [a-z]+|[a-z]+)/.exec(word)?.[1] ?? []
  );
  assert.deepEqual(commands.sort(), COMMANDS.map(({ name }) => name).sort());

  const settings = section("README.md", "## Settings");
  const rows = tableRows(settings).map(([flag, variable, key]) => ({
    flag: /--([a-z-]+)/.exec(flag!)?.[1],
    variable: quoted(variable!)[0],
    key: quoted(key!)[0]?.replaceAll(/[[\]]/g, ""),
  }));
  for (const key of [...SETTING_KEYS, "storage"]) {
    const variable = `LOCKVISOR_${key.toUpperCase().replaceAll("-", "_")}`;
    assert.ok(rows.some((row) => row.flag === key && row.variable === variable && row.key === key), key);
  }
  for (const key of AGENT_KEYS) {
    const variable = `LOCKVISOR_AGENT_${key.toUpperCase().replaceAll("-", "_")}`;
    assert.ok(rows.some((row) => row.flag === key && row.variable === variable && row.key === key), key);
  }
  assert.equal(
    rows.length,
    SETTING_KEYS.length + AGENT_KEYS.length + "storage config others".split(" ").length,
  );
  const daemon = COMMANDS.find(({ name }) => name === "daemon")!;
  for (const { name } of daemon.options) assert.ok(settings.includes(`\`--${name}`), name);

  const tasks = firstCells("README.md", "## Working on it").flatMap((word) =>
    /^deno task ([a-z]+)/.exec(word)?.[1] ?? []
  );
  const { tasks: defined } = JSON.parse(textOf("deno.json"));
  assert.deepEqual(tasks.sort(), Object.keys(defined).sort());
});

Deno.test("README: every package of the program has its reason", () => {
  const { imports } = JSON.parse(textOf("deno.json"));
  const dependencies = section("README.md", "## Dependencies");
  for (const name of Object.keys(imports)) assert.ok(dependencies.includes(`\`${name}\``), name);
});
