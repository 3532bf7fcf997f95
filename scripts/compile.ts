import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { capture, tail } from "./capture.ts";
import { cleanupStack, temporaryFolder } from "./cleanup.ts";
import { Failure, runScript, UNAVAILABLE, USAGE } from "./failure.ts";
import { isFresh } from "./freshness.ts";
import { runCompile } from "./plain_compile.ts";
import { BINARY, DIST, FAILPOINT_BINARY, ROOT } from "./project.ts";
import { fetchCompiler, fetchRuntime, RUNTIME_VERSION } from "./runtime.ts";
import { standIns, WHOLE_FOLDER } from "./start_part.ts";
import { checkMachine, hostTarget, parseTarget, type Target } from "./target.ts";

/** What lockvisor is built from. */
const LOCKVISOR = join(ROOT, "main.ts");

/** Whether a test can have the program killed at its failpoints; `armed` only in what is built for tests. */
export type Failpoints = "absent" | "armed";

/** What to build; without `target`, for the machine that builds, and without failpoints. */
export interface ProgramSource {
  entry: string;
  output: string;
  target?: Target;
  failpoints?: Failpoints;
}

/** What was built, and in which of the two ways, in words for people. */
export interface Program {
  path: string;
  bytes: number;
  way: string;
}

/**
 * How `deno compile` is called in both ways. It gets one file without imports, so configuration, npm and the
 * network have no say in what ends up in the program; types are checked by `deno task check`. All permissions:
 * the file API of Deno shows /proc and /sys with nothing less.
 *
 * --no-code-cache is a matter of safety: a program with it reads and writes V8 code under a name that anybody
 * can foretell, in a folder that anybody can write (/tmp/deno-compile-NAME.cache), and lockvisor runs as root.
 *
 * --no-sparkplug: V8 does without its quickest compiler, which a start would use for a hash or two, and pay 1 to 2 ms
 * for the first page of machine code. What runs for long is compiled by the others as before.
 */
const COMPILE = [
  "compile",
  "--no-config",
  "--no-npm",
  "--no-remote",
  "--no-check",
  "--no-code-cache",
  "--allow-all",
  "--v8-flags=--no-sparkplug",
];

/** Builds a program. What was at `output` is replaced in one step, so that a running program is not overwritten. */
export async function compileProgram(
  { entry, output, target = hostTarget(), failpoints = "absent" }: ProgramSource,
): Promise<Program> {
  using stack = cleanupStack();
  const scratch = temporaryFolder(stack);
  Deno.mkdirSync(dirname(output), { recursive: true });
  // On the output's filesystem, for the rename; in a folder, because the file's name ends up in the program.
  const made = join(temporaryFolder(stack, { parent: dirname(output), prefix: ".build-" }), basename(output));
  const way = await compileBundle(await bundle(entry, { scratch, failpoints }), {
    output: made,
    target,
    scratch,
  });
  checkMachine(made, target);
  const bytes = Deno.statSync(made).size;
  Deno.renameSync(made, output);
  return { path: output, bytes, way };
}

/** A program as JavaScript in a folder of its own: the file that it begins with, and those that it loads later. */
interface Bundle {
  main: string;
  later: string[];
}

/**
 * The program as JavaScript, with everything that it imports: what is imported lazily is in files of its own, so that a
 * start does not read it. Lockvisor itself begins with its start part; see start_part.ts.
 */
async function bundle(
  entry: string,
  { scratch, failpoints }: { scratch: string; failpoints: Failpoints },
): Promise<Bundle> {
  const folder = join(scratch, "source");
  const name = basename(entry).replace(/\.ts$/, ".js");
  const main = join(folder, name);
  const replaced = failpoints === "absent" ? {} : armed();
  if (resolve(entry) !== LOCKVISOR) {
    await runBundle(entry, { config: configWith(replaced, scratch), folder, files: "several" });
    return { main, later: [] };
  }
  const whole = join(folder, WHOLE_FOLDER);
  await runBundle(entry, { config: configWith(replaced, scratch), folder: whole, files: "several" });
  const lacking = { ...replaced, ...standIns(Deno.makeTempDirSync({ dir: scratch, prefix: "stand-ins-" })) };
  await runBundle(entry, { config: configWith(lacking, scratch), folder, files: "one" });
  return { main, later: [join(whole, name)] };
}

async function runBundle(
  entry: string,
  { config, folder, files }: { config: string; folder: string; files: "one" | "several" },
): Promise<void> {
  const args = ["bundle", "--minify", "--config", config, "--outdir", folder];
  if (files === "several") args.push("--code-splitting");
  args.push(resolve(entry));
  const { success, stderr } = await capture(Deno.execPath(), args, { cwd: ROOT, env: { NO_COLOR: "1" } });
  if (!success) throw new Failure(`cannot bundle ${entry}:\n${tail(stderr)}`);
}

/** The module of the failpoints is the one that kills. */
function armed(): Record<string, string> {
  const url = (path: string) => pathToFileURL(join(ROOT, path)).href;
  return { [url("lib/failpoint.ts")]: url("lib/failpoint_armed.ts") };
}

/** The project's configuration, but with other modules in the place of some. */
function configWith(replaced: Record<string, string>, scratch: string): string {
  const ours = join(ROOT, "deno.json");
  if (Object.keys(replaced).length === 0) return ours;
  const { imports } = JSON.parse(Deno.readTextFileSync(ours));
  const path = Deno.makeTempFileSync({ dir: scratch, prefix: "deno-", suffix: ".json" });
  const config = { imports: { ...imports, ...replaced }, nodeModulesDir: "none", lock: false };
  Deno.writeTextFileSync(path, JSON.stringify(config));
  return path;
}

/** Compiles with this Deno's own runtime, or else with the one from npm; tells which. */
async function compileBundle(
  { main, later }: Bundle,
  { output, target, scratch }: { output: string; target: Target; scratch: string },
): Promise<string> {
  const cwd = dirname(main);
  const args = [...COMPILE, "--output", output];
  for (const file of later) args.push("--include", file);
  if (target !== hostTarget()) args.push("--target", target);
  const plain = await runCompile({ deno: Deno.execPath(), args: [...args, main], cwd });
  if (plain.kind === "made") return `plain deno compile (Deno ${Deno.version.deno})`;

  console.error(`no runtime from Deno's download host: ${plain.reason}`);
  if (target !== "x86_64-unknown-linux-gnu") {
    const text =
      `cannot build for ${target}: without Deno's download host there is a checked runtime only for x86_64`;
    throw new Failure(text, { status: UNAVAILABLE });
  }
  const env = { DENORT_BIN: await fetchRuntime(scratch) };
  const other = await runCompile({ deno: await fetchCompiler(), args: [...args, main], cwd, env });
  if (other.kind === "no-runtime") {
    throw new Failure(`deno@${RUNTIME_VERSION} did not take DENORT_BIN: ${other.reason}`);
  }
  return `deno compile with the hash-checked runtime from npm (Deno ${RUNTIME_VERSION})`;
}

/** Where a program goes that was given no name: one for another machine must not pass for our own. */
function defaultOutput(target: Target): string {
  return target === hostTarget() ? BINARY : join(DIST, `lockvisor-${target}`);
}

/** Builds lockvisor and tells how; `when-stale` leaves a program alone that is newer than its sources. */
export async function compileLockvisor(
  when: "always" | "when-stale",
  {
    target = hostTarget(),
    failpoints = "absent",
    entry = LOCKVISOR,
    output = failpoints === "armed" ? FAILPOINT_BINARY : defaultOutput(target),
  }: Partial<ProgramSource> = {},
): Promise<void> {
  if (when === "when-stale" && isFresh(output)) return console.log(`${output} is up to date`);
  const { path, bytes, way } = await compileProgram({ entry, output, target, failpoints });
  console.log(`${path}: ${(bytes / 1e6).toFixed(0)} MB, by ${way}`);
}

function parseOptions(args: string[]) {
  try {
    const options = {
      target: { type: "string" },
      entry: { type: "string" },
      output: { type: "string" },
      "if-stale": { type: "boolean" },
    } as const;
    return parseArgs({ args, options }).values;
  } catch (error) {
    throw new Failure((error as Error).message, { status: USAGE });
  }
}

async function main(): Promise<number> {
  const { target, entry, output, "if-stale": ifStale } = parseOptions(Deno.args);
  await compileLockvisor(ifStale ? "when-stale" : "always", {
    ...(target === undefined ? {} : { target: parseTarget(target) }),
    ...(entry === undefined ? {} : { entry: resolve(entry) }),
    ...(output === undefined ? {} : { output: resolve(output) }),
  });
  return 0;
}

if (import.meta.main) await runScript("compile", main);
