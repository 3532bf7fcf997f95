import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Finished, World } from "./world.ts";

const ROOT = dirname(dirname(import.meta.dirname!));

/**
 * Changes the access of disks of a guest, as no command does it, in a process that may be killed at its failpoints.
 * @param args the guest's name, and its disks as `--disk` takes them
 */
export async function changeAccess(
  world: World,
  args: string[],
  env: Record<string, string> = {},
): Promise<Finished> {
  const config = await armedConfig(world);
  const program = join(import.meta.dirname!, "access_program.ts");
  // Compiled modules are in the user's own cache, and the world has a home of its own.
  const cache = { HOME: Deno.env.get("HOME") ?? "/root", DENO_NO_UPDATE_CHECK: "1" };
  const deno = ["run", "-A", "--no-check", "--quiet", "--config", config, program];
  return await world.execute(Deno.execPath(), [...deno, ...args], { env: { ...cache, ...env } });
}

/** The project's configuration, but the module of the failpoints is the one that kills, as in what is compiled for tests. */
async function armedConfig(world: World): Promise<string> {
  const { imports } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const url = (path: string) => pathToFileURL(join(ROOT, path)).href;
  const armed = { ...imports, [url("lib/failpoint.ts")]: url("lib/failpoint_armed.ts") };
  const path = join(world.directory, "deno.json");
  await Deno.writeTextFile(path, JSON.stringify({ imports: armed, nodeModulesDir: "none", lock: false }));
  return path;
}
