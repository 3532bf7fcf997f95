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

/** The script, its code, and the module that runs it. */
const SCRIPT = "start.script";
const CODE = "start.code";
const RUNNER = "start.js";

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
export async function joinStart({ folder, main }: Bundle, scratch: string): Promise<Bundle> {
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
  return { folder, main, beside: [SCRIPT, ...lazy] };
}

/** The bundle whose program writes the code that V8 has made for its script to a file, when it ends. */
export function recordingBundle(bundle: Bundle, file: string): Bundle {
  const record = `const exit = Deno.exit;
Deno.exit = (status) => {
  Deno.writeFileSync(${JSON.stringify(file)}, script.createCachedData());
  exit(status);
};
`;
  Deno.writeTextFileSync(join(bundle.folder, RUNNER), runner("", record));
  return bundle;
}

/** The bundle whose program takes over code that was recorded. */
export function recordedBundle(bundle: Bundle, file: string): Bundle {
  Deno.copyFileSync(file, join(bundle.folder, CODE));
  const check = `if (script.cachedDataRejected && Deno.env.get("LOCKVISOR_DEBUG")) {
  console.error("lockvisor: V8 does not take the code that is built in, and makes it anew");
}
`;
  const text = runner(`  cachedData: Deno.readFileSync(\`\${import.meta.dirname}/${CODE}\`),\n`, check);
  Deno.writeTextFileSync(join(bundle.folder, RUNNER), text);
  return { ...bundle, beside: [...bundle.beside, CODE] };
}

/** The module that runs the script and exports what it gives. */
function runner(option: string, before: string): string {
  return `import { constants, Script } from "node:vm";
const script = new Script(Deno.readTextFileSync(\`\${import.meta.dirname}/${SCRIPT}\`), {
  filename: import.meta.resolve("./${SCRIPT}"),
  importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
${option}});
${before}const module = {};
script.runInThisContext()(module, process.getBuiltinModule);
export default module.exports;
`;
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
