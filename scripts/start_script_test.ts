import assert from "node:assert/strict";
import { join } from "node:path";
import { capture } from "./capture.ts";
import { temporaryFolder } from "./cleanup.ts";
import { Failure } from "./failure.ts";
import {
  exportedNames,
  importedBy,
  joinLazy,
  joinStart,
  recordedBundle,
  recordingBundle,
} from "./start_script.ts";

/** A program as the bundler leaves it: a main file, three files that it imports, and one that it imports when it runs. */
const FILES: Record<string, string> = {
  "main.js": `import{a as r}from"./upper.js";import"./lower.js";import"./empty.js";Deno.exit(await r());`,
  "upper.js":
    `import{a as e}from"./lower.js";async function r(){let{b:o}=await import("./lazy.js");return o(new e)}export{r as a};`,
  "lower.js": `var e=class{status=7},unused=1;export{e as a,unused as b};`,
  "empty.js": "",
  "lazy.js": `import{a as e}from"./lower.js";function n(t){return t instanceof e?t.status:1}export{n as b};`,
};

/** The same, in a folder, and one for the scratch. */
function written(stack: DisposableStack, files = FILES) {
  const [folder, scratch] = [temporaryFolder(stack), temporaryFolder(stack)];
  for (const [name, text] of Object.entries(files)) Deno.writeTextFileSync(join(folder, name), text);
  return { bundle: { folder, main: "main.js", beside: [] }, scratch };
}

/** Runs the program of a bundle: 7 is the status of one in which the lazy file meets the class of the script. */
async function run(folder: string): Promise<{ code: number; stderr: string }> {
  const args = ["run", "--no-config", "--allow-all", "main.js"];
  return await capture(Deno.execPath(), args, { cwd: folder, env: { LOCKVISOR_DEBUG: "1", NO_COLOR: "1" } });
}

Deno.test("the start's files become a script, and what is imported lazily shares its classes", async () => {
  using stack = new DisposableStack();
  const { bundle, scratch } = written(stack);
  const joined = await joinStart(bundle, scratch);
  assert.deepEqual(joined.beside, ["start.script", "lazy.js"]);

  const code = join(scratch, "code");
  recordingBundle(joined, code);
  assert.equal((await run(bundle.folder)).code, 7);

  const recorded = recordedBundle(joined, code);
  assert.deepEqual(recorded.beside, ["start.script", "lazy.js", "start.code"]);
  const { code: status, stderr } = await run(bundle.folder);
  assert.equal(status, 7);
  assert.equal(stderr, "");
});

Deno.test("a file that is imported lazily becomes a script of its own, and shares the start's classes", async () => {
  using stack = new DisposableStack();
  const rest = {
    "lazy-A1.js":
      `import{a as e}from"./lower.js";import{d as f}from"./own.js";async function n(t){let{x:y}=await import("./later.js");return t instanceof e?f(y(t)):1}export{n as b};`,
    "own.js": `function g(s){return s}export{g as d};`,
    "later.js":
      `import{a as e}from"./lower.js";function h(t){return t instanceof e?t.status:2}export{h as x};`,
  };
  const upper = FILES["upper.js"]!.replace("./lazy.js", "./lazy-A1.js");
  const { bundle, scratch } = written(stack, { ...FILES, ...rest, "upper.js": upper });
  const joined = await joinLazy(await joinStart(bundle, scratch), "lazy", scratch);
  assert.deepEqual(joined.beside, ["start.script", "lazy.script", "later.js"]);

  const code = join(scratch, "code");
  recordingBundle(joined, code);
  assert.equal((await run(bundle.folder)).code, 7);
  const recorded = recordedBundle(joined, code);
  assert.deepEqual(recorded.beside, [...joined.beside, "start.code", "lazy.code"]);
  const { code: status, stderr } = await run(bundle.folder);
  assert.equal(status, 7);
  assert.equal(stderr, "");
  await assert.rejects(() => joinLazy(joined, "none", scratch), Failure);
});

Deno.test("code that V8 does not take changes nothing", async () => {
  using stack = new DisposableStack();
  const { bundle, scratch } = written(stack);
  const joined = await joinStart(bundle, scratch);
  const code = join(scratch, "code");
  Deno.writeTextFileSync(`${code}.start`, "of another V8");
  recordedBundle(joined, code);
  const { code: status, stderr } = await run(bundle.folder);
  assert.equal(status, 7);
  assert.match(stderr, /^lockvisor: V8 does not take the code/);
});

Deno.test("what a script cannot have is refused", async () => {
  using stack = new DisposableStack();
  const lower = `import{join as j}from"node:path";var e=class{status=j("7")};export{e as a};`;
  const { bundle, scratch } = written(stack, { ...FILES, "lower.js": lower });
  await assert.rejects(() => joinStart(bundle, scratch), Failure);
});

Deno.test("all that a file imports is found, each once", () => {
  assert.deepEqual(importedBy("main.js", (file) => FILES[file]!), ["lower.js", "upper.js", "empty.js"]);
});

Deno.test("the exported names are read from the end of a file", () => {
  const text = `var a="export{no}";export{a as b,c,d as $e};\n`;
  assert.deepEqual(exportedNames(text, "chunk.js"), ["b", "c", "$e"]);
  assert.deepEqual(exportedNames("", "chunk.js"), []);
  assert.throws(() => exportedNames("var a=1;export{a};var b=2;", "chunk.js"), Failure);
});
