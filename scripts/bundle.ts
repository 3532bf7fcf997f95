import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { capture, tail } from "./capture.ts";
import { Failure } from "./failure.ts";
import { ROOT } from "./project.ts";

/** Whether a test can have the program killed at its failpoints; `armed` only in what is built for tests. */
export type Failpoints = "absent" | "armed";

/** JavaScript alone in a folder. */
export interface Bundle {
  folder: string;
  /** The file that the program begins with. */
  main: string;
  /** Files that belong to the program although no `import` with a name in it leads to them. */
  beside: readonly string[];
}

/** What a bundle is made of. */
export interface BundleSource {
  entry: string;
  /** Modules of the start whose code is not to be in the main file, but in files beside it. */
  apart?: readonly string[];
  failpoints: Failpoints;
}

/**
 * JavaScript with everything the program imports, alone in a folder: the main file, and beside it what is imported
 * lazily, so that a start does not read it.
 */
export async function bundleProgram(
  { entry, apart = [], failpoints }: BundleSource,
  scratch: string,
): Promise<Bundle> {
  const folder = join(scratch, "source");
  const config = failpoints === "absent" ? join(ROOT, "deno.json") : armedConfig(scratch);
  const entries = [entry, ...apart].map((file) => resolve(file));
  await runBundler(["--code-splitting", "--config", config, "--outdir", folder, ...entries]);
  return { folder, main: basename(entry).replace(/\.ts$/, ".js"), beside: [] };
}

/** Runs `deno bundle`. @throws {Failure} with the end of what it wrote */
export async function runBundler(args: readonly string[]): Promise<void> {
  const { success, stderr } = await capture(Deno.execPath(), ["bundle", "--minify", ...args], {
    cwd: ROOT,
    env: { NO_COLOR: "1" },
  });
  if (!success) throw new Failure(`cannot bundle ${args.at(-1)}:\n${tail(stderr)}`);
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
