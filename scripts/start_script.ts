import { basename, join } from "node:path";
import { type Bundle, runBundler } from "./bundle.ts";
import { Failure } from "./failure.ts";

/**
 * What a start reads, as one script that V8 can take with its code already made (recorded_code.ts). It takes that for
 * scripts only, not for modules.
 *
 * The bundler has put what main.js imports into some files. Here they become one script. In the place of each file comes
 * a module that exports the same names out of the script, so main.js and what is imported lazily need not know.
 */

/** The script of the start, and the module that runs it. */
const SCRIPT = "start.script";
const RUNNER = "start.js";

/** A script in a bundle, and the module that runs it. */
export interface BundledScript {
  /** It is `NAME.script`, and its code `NAME.code`. */
  name: string;
  /** The module's file. */
  runner: string;
  /** What the module has first, how the script gets what it requires, and what the module exports: JavaScript. */
  imports: string;
  require: string;
  exports: string;
}

/** A bundle with scripts in it. */
export interface JoinedBundle extends Bundle {
  scripts: readonly BundledScript[];
}

/** The function with which a bundle reads what is built into the runtime, under the name that the script has for it. */
const REQUIRE = "requireBuiltin";

/**
 * What `deno bundle` puts into one of the files for packages that call require(). A script has no import, and no
 * import.meta: it is given the function.
 */
const REQUIRE_IMPORT = `import{createRequire as __deno_internal_createRequire} from "node:module";`;
const REQUIRE_MADE = "__deno_internal_createRequire(import.meta.url)";

/**
 * Makes one script of the files that the main file imports, in the bundle's folder.
 * @throws {Failure} when the bundler has made something that does not fit into a script
 */
export async function joinStart({ folder, main }: Bundle, scratch: string): Promise<JoinedBundle> {
  const read = (file: string) => Deno.readTextFileSync(join(folder, file));
  const start = importedBy(main, read);
  const lazy = [...new Set(start.flatMap((file) => lazilyImported(read(file))))];
  const entry = join(folder, RUNNER);
  for (const file of start) {
    const text = read(file).replace(REQUIRE_IMPORT, "").replace(REQUIRE_MADE, REQUIRE);
    Deno.writeTextFileSync(join(folder, file), text);
  }
  const names = start.map((file, index) => ({ file, name: `part${index}` }));
  Deno.writeTextFileSync(
    entry,
    names.map(({ file, name }) => `export * as ${name} from "./${file}";\n`).join(""),
  );
  const outside = lazy.flatMap((file) => ["--external", `./${file}`]);
  const joined = join(scratch, "joined");
  await runBundler(["--format", "cjs", ...outside, "--outdir", joined, entry]);
  Deno.writeTextFileSync(join(folder, SCRIPT), scriptOf(Deno.readTextFileSync(join(joined, RUNNER))));
  // The script runs as a whole: a file that nothing is taken from needs no load.
  Deno.writeTextFileSync(join(folder, main), read(main).replaceAll(/\bimport"\.\/[^"/]+";/g, ""));
  for (const { file, name } of names) {
    Deno.writeTextFileSync(join(folder, file), standIn(name, exportedNames(read(file), file)));
  }
  const script: BundledScript = {
    name: "start",
    runner: RUNNER,
    imports: "",
    require: "process.getBuiltinModule",
    exports: "export default module.exports;\n",
  };
  return { folder, main, beside: [SCRIPT, ...lazy], scripts: [script] };
}

/**
 * Makes a script of its own of a file that some starts import lazily, in a bundle whose start was joined. It gets the
 * start's parts from there.
 * @param stem the file's name up to the hash that the bundler appends
 * @throws {Failure} as {@linkcode joinStart}
 */
export async function joinLazy(bundle: JoinedBundle, stem: string, scratch: string): Promise<JoinedBundle> {
  const { folder, beside, scripts } = bundle;
  const file = beside.find((each) => each.startsWith(`${stem}-`));
  if (file === undefined) throw new Failure(`the start of the program does not import ${stem} lazily`);
  const read = (name: string) => Deno.readTextFileSync(join(folder, name));
  const parts = new Map<string, string>();
  for (const each of importedBy(file, read)) {
    const [, part] =
      new RegExp(`^import script from "./${RUNNER}";[^]* = script\\.(\\w+);\\n$`).exec(read(each)) ?? [];
    if (part !== undefined) parts.set(`./${each}`, part);
  }
  const own = [file, ...importedBy(file, read)].filter((each) => !parts.has(`./${each}`) && each !== RUNNER);
  const lazy = [...new Set(own.flatMap((each) => lazilyImported(read(each))))];
  const outside = [...parts.keys(), ...lazy.map((each) => `./${each}`)].flatMap((
    each,
  ) => ["--external", each]);
  const joined = join(scratch, "joined");
  await runBundler(["--format", "cjs", ...outside, "--outdir", joined, join(folder, file)]);
  const commonJs = Deno.readTextFileSync(join(joined, file)).replaceAll(/\brequire\("/g, `${REQUIRE}("`);
  Deno.writeTextFileSync(join(folder, `${stem}.script`), scriptOf(commonJs));
  const names = exportedNames(read(file), file).map((name) => `${name}`).join(", ");
  const script: BundledScript = {
    name: stem,
    runner: file,
    imports: `import start from "./${RUNNER}";\nconst parts = ${
      JSON.stringify(Object.fromEntries(parts))
    };\n`,
    require: "(name) => start[parts[name]]",
    exports: `export const { ${names} } = module.exports;\n`,
  };
  return {
    ...bundle,
    beside: [...new Set([...beside, `${stem}.script`, ...lazy])],
    scripts: [...scripts, script],
  };
}

/** The bundle whose program writes the code that V8 has made for its scripts to files, when it ends. */
export function recordingBundle(bundle: JoinedBundle, file: string): JoinedBundle {
  const [start, ...lazy] = bundle.scripts;
  const entry = (script: BundledScript) => `[${JSON.stringify(codeFile(file, script))}, script]`;
  const record = `globalThis.recorded = [${entry(start!)}];
const exit = Deno.exit;
Deno.exit = (status) => {
  for (const [file, script] of globalThis.recorded) Deno.writeFileSync(file, script.createCachedData());
  exit(status);
};
`;
  Deno.writeTextFileSync(join(bundle.folder, start!.runner), runner(start!, "", record));
  for (const script of lazy) {
    const text = runner(script, "", `globalThis.recorded.push(${entry(script)});\n`);
    Deno.writeTextFileSync(join(bundle.folder, script.runner), text);
  }
  return bundle;
}

/** The bundle whose program takes over code that was recorded. */
export function recordedBundle(bundle: JoinedBundle, file: string): JoinedBundle {
  const check = `if (script.cachedDataRejected && Deno.env.get("LOCKVISOR_DEBUG")) {
  console.error("lockvisor: V8 does not take the code that is built in, and makes it anew");
}
`;
  for (const script of bundle.scripts) {
    const code = `${script.name}.code`;
    Deno.copyFileSync(codeFile(file, script), join(bundle.folder, code));
    const option = `  cachedData: Deno.readFileSync(\`\${import.meta.dirname}/${code}\`),\n`;
    Deno.writeTextFileSync(join(bundle.folder, script.runner), runner(script, option, check));
  }
  const codes = bundle.scripts.map(({ name }) => `${name}.code`);
  return { ...bundle, beside: [...bundle.beside, ...codes] };
}

/** Where the code of a script is recorded. */
function codeFile(file: string, { name }: BundledScript): string {
  return `${file}.${name}`;
}

/** The module that runs a script and exports what it gives. */
function runner({ name, imports, require, exports }: BundledScript, option: string, before: string): string {
  return `import { constants, Script } from "node:vm";
${imports}const script = new Script(Deno.readTextFileSync(\`\${import.meta.dirname}/${name}.script\`), {
  filename: import.meta.resolve("./${name}.script"),
  importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
${option}});
${before}const module = {};
script.runInThisContext()(module, ${require});
${exports}`;
}

/** The files that a file imports, and those that they import, each after those it needs. */
export function importedBy(main: string, read: (file: string) => string): string[] {
  const found = new Set<string>();
  const visit = (file: string) => {
    for (const [, name] of read(file).matchAll(/\b(?:from|import)"\.\/([^"/]+)"/g)) {
      if (found.has(name!)) continue;
      visit(name!);
      found.add(name!);
    }
  };
  visit(main);
  return [...found];
}

/** The files that a file imports when it needs them. */
function lazilyImported(text: string): string[] {
  return Array.from(text.matchAll(/\bimport\("\.\/([^"/]+)"\)/g), ([, name]) => name!);
}

/** The names that a file of the bundler exports: it has one export statement, at its end, or none: some are empty. */
export function exportedNames(text: string, file: string): string[] {
  if (!/\bexport\b/.test(text)) return [];
  const list = /\bexport\{([^{}]*)\};\s*$/.exec(text)?.[1];
  if (list === undefined) throw new Failure(`${basename(file)} of the bundle does not end with its exports`);
  return list.split(",").filter((each) => each !== "").map((each) => each.split(" as ").at(-1)!.trim());
}

/** A module in the place of a part of the script. */
function standIn(part: string, names: readonly string[]): string {
  return `import script from "./${RUNNER}";\nexport const { ${names.join(", ")} } = script.${part};\n`;
}

/** A CommonJS module as a function of what it needs. */
function scriptOf(commonJs: string): string {
  const unfit = /\bimport\.meta\b|\brequire\(/.exec(commonJs)?.[0];
  if (unfit !== undefined) throw new Failure(`the start of the program cannot be a script: it has ${unfit}`);
  return `(function(module,${REQUIRE}){"use strict";${commonJs}})`;
}
