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

/** The script of the start, and the module that runs it and the others. */
const START = "start";
const RUNNER = "start.js";

/** A script in a bundle: it is `NAME.script`, and its code `NAME.code`. */
export interface BundledScript {
  name: string;
  /** By the name of each file that it requires, the part of the start's script that has what that exported. */
  parts: Readonly<Record<string, string>>;
}

/** A bundle with scripts in it. */
export interface JoinedBundle extends Bundle {
  scripts: readonly BundledScript[];
}

/** The function with which a script gets what it requires, under the name that the script has for it. */
const REQUIRE = "requirePart";

/** The function with which a script runs another one, by its name, and gets what that exports. */
const RUN_SCRIPT = "runScript";

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
  Deno.writeTextFileSync(
    join(folder, scriptFile(START)),
    scriptOf(Deno.readTextFileSync(join(joined, RUNNER))),
  );
  // The script runs as a whole: a file that nothing is taken from needs no load.
  Deno.writeTextFileSync(join(folder, main), read(main).replaceAll(/\bimport"\.\/[^"/]+";/g, ""));
  for (const { file, name } of names) {
    Deno.writeTextFileSync(join(folder, file), standIn(name, exportedNames(read(file), file)));
  }
  return { folder, main, beside: [scriptFile(START), ...lazy], scripts: [{ name: START, parts: {} }] };
}

/**
 * Makes a script of its own of a file that some starts import lazily, in a bundle whose start was joined. It gets the
 * start's parts from there. The start runs it at once where it imported the file: a module would be loaded in several
 * turns.
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
  Deno.writeTextFileSync(join(folder, scriptFile(stem)), scriptOf(commonJs));
  const start = read(scriptFile(START)).replaceAll(`import("./${file}")`, `${RUN_SCRIPT}("${stem}")`);
  Deno.writeTextFileSync(join(folder, scriptFile(START)), start);
  return {
    ...bundle,
    beside: [...new Set([...beside.filter((each) => each !== file), scriptFile(stem), ...lazy])],
    scripts: [...scripts, { name: stem, parts: Object.fromEntries(parts) }],
  };
}

/** The bundle whose program writes the code that V8 has made for its scripts to files, when it ends. */
export function recordingBundle(bundle: JoinedBundle, file: string): JoinedBundle {
  const begin = `const recorded = [];
const exit = Deno.exit;
Deno.exit = (status) => {
  for (const [file, script] of recorded) Deno.writeFileSync(file, script.createCachedData());
  exit(status);
};
`;
  const made = `  recorded.push([${JSON.stringify(`${file}.`)} + name, script]);\n`;
  writeRunner(bundle, { begin, option: "", made });
  return bundle;
}

/** The bundle whose program takes over code that was recorded. */
export function recordedBundle(bundle: JoinedBundle, file: string): JoinedBundle {
  const made = `  if (script.cachedDataRejected && Deno.env.get("LOCKVISOR_DEBUG")) {
    console.error("lockvisor: V8 does not take the code that is built in, and makes it anew");
  }
`;
  const option = "    cachedData: Deno.readFileSync(`${import.meta.dirname}/${name}.code`),\n";
  writeRunner(bundle, { begin: "", option, made });
  const names = bundle.scripts.map(({ name }) => name);
  for (const name of names) Deno.copyFileSync(`${file}.${name}`, join(bundle.folder, `${name}.code`));
  return { ...bundle, beside: [...bundle.beside, ...names.map((name) => `${name}.code`)] };
}

function scriptFile(name: string): string {
  return `${name}.script`;
}

/**
 * Writes the module that runs the scripts, and exports what that of the start gives.
 * @param pieces JavaScript: what it begins with, one more option for a script, and what to do with one that was made
 */
function writeRunner(
  { folder, scripts }: JoinedBundle,
  { begin, option, made }: { begin: string; option: string; made: string },
): void {
  const parts = Object.fromEntries(scripts.map(({ name, parts }) => [name, parts]));
  const text = `import { constants, Script } from "node:vm";
${begin}const parts = ${JSON.stringify(parts)};
function run(name, require) {
  const script = new Script(Deno.readTextFileSync(\`\${import.meta.dirname}/\${name}.script\`), {
    filename: import.meta.resolve(\`./\${name}.script\`),
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
${option}  });
${made}  const module = {};
  script.runInThisContext()(module, require, runLazy);
  return module.exports;
}
const ran = {};
const runLazy = (name) => ran[name] ??= run(name, (file) => start[parts[name][file]]);
const start = run(${JSON.stringify(START)}, process.getBuiltinModule);
export default start;
`;
  Deno.writeTextFileSync(join(folder, RUNNER), text);
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
  return `(function(module,${REQUIRE},${RUN_SCRIPT}){"use strict";${commonJs}})`;
}
