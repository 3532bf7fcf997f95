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
import { checkMachine, hostTarget, parseTarget, type Target } from "./target.ts";

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
 *
 * --max-semi-space-size: V8 lets what is new grow to 16 MB, three times over, before it tidies up: with 1 000 guests the
 * agent has 125 MB then instead of 100.
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
  "--v8-flags=--no-sparkplug,--max-semi-space-size=2,--expose-gc",
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

/**
 * JavaScript with everything the program imports, alone in a folder: the main file, and beside it what is imported
 * lazily, so that a start does not read it.
 */
async function bundle(
  entry: string,
  { scratch, failpoints }: { scratch: string; failpoints: Failpoints },
): Promise<string> {
  const folder = join(scratch, "source");
  const file = join(folder, basename(entry).replace(/\.ts$/, ".js"));
  const args = [
    "bundle",
    "--minify",
    "--code-splitting",
    "--config",
    failpoints === "absent" ? join(ROOT, "deno.json") : armedConfig(scratch),
    "--outdir",
    folder,
  ];
  args.push(resolve(entry));
  const { success, stderr } = await capture(Deno.execPath(), args, { cwd: ROOT, env: { NO_COLOR: "1" } });
  if (!success) throw new Failure(`cannot bundle ${entry}:\n${tail(stderr)}`);
  return file;
}

/** The project's configuration, but the module of the failpoints is the one that kills. */
function armedConfig(scratch: string): string {
  const { imports } = JSON.parse(Deno.readTextFileSync(join(ROOT, "deno.json")));
  const url = (path: string) => pathToFileURL(join(ROOT, path)).href;
  const armed = { ...imports, [url("lib/failpoint.ts")]: url("lib/failpoint_armed.ts") };
  const path = join(scratch, "deno.json");
  Deno.writeTextFileSync(path, JSON.stringify({ imports: armed, nodeModulesDir: "none", lock: false }));
  return path;
}

/** Compiles with this Deno's own runtime, or else with the one from npm; tells which. */
async function compileBundle(
  file: string,
  { output, target, scratch }: { output: string; target: Target; scratch: string },
): Promise<string> {
  const cwd = dirname(file);
  const args = [...COMPILE, "--output", output];
  if (target !== hostTarget()) args.push("--target", target);
  const plain = await runCompile({ deno: Deno.execPath(), args: [...args, file], cwd });
  if (plain.kind === "made") return `plain deno compile (Deno ${Deno.version.deno})`;

  console.error(`no runtime from Deno's download host: ${plain.reason}`);
  if (target !== "x86_64-unknown-linux-gnu") {
    const text =
      `cannot build for ${target}: without Deno's download host there is a checked runtime only for x86_64`;
    throw new Failure(text, { status: UNAVAILABLE });
  }
  const env = { DENORT_BIN: await fetchRuntime(scratch) };
  const other = await runCompile({ deno: await fetchCompiler(), args: [...args, file], cwd, env });
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
    entry = join(ROOT, "main.ts"),
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
