import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Failure } from "./failure.ts";
import { ROOT } from "./project.ts";

/**
 * The program has two parts, both made from main.ts. The start part is one small file that knows how to start a guest
 * on regular files, and no more: reading a program takes V8 0.06 ms for each kB, whether it is used or not. What it lacks
 * is replaced in it by stand-ins that throw; main.ts then goes on with the other part, which is whole. A stand-in may be
 * met only before anything is locked or written, so that it does not matter that the whole part begins anew.
 */

/** Modules whose functions throw at the first call. They export functions only. */
const LEFT_OUT = [
  "lib/identity/block_device.ts",
  "lib/identity/block_name.ts",
  "lib/identity/network_disk.ts",
  "lib/lockspace/carrier_evidence.ts",
  "lib/lockspace/holdings.ts",
  "lib/lockspace/noted_guests.ts",
  "lib/manager/supervisor.ts",
];

/** Modules that are imported lazily only: it is the import that throws. */
const NEVER_IMPORTED = [
  "lib/carrier/live_guest.ts",
  "lib/cli/run_later.ts",
  "lib/cli/unhurried.ts",
  "lib/config/config_file.ts",
  "lib/manager/attached_guest.ts",
  "lib/manager/driver_file.ts",
];

/** Where main.ts expects the whole program, from the start part's own place. */
export const WHOLE_FOLDER = "whole";

/** Puts the stand-ins into a folder. Gives what an import map needs to have them in the place of the modules. */
export function standIns(folder: string): Record<string, string> {
  const map: Record<string, string> = {};
  const put = (module: string, text: string) => {
    const path = join(folder, module.replaceAll("/", "_"));
    Deno.writeTextFileSync(path, `import { LeftOut } from "${urlOf("lib/left_out.ts")}";\n${text}`);
    map[urlOf(module)] = pathToFileURL(path).href;
  };
  for (const module of LEFT_OUT) {
    const names = exportedFunctions(module, Deno.readTextFileSync(join(ROOT, module)));
    put(module, names.map((name) => `export function ${name}() { throw new LeftOut(); }\n`).join(""));
  }
  for (const module of NEVER_IMPORTED) put(module, "throw new LeftOut();\n");
  return map;
}

function urlOf(module: string): string {
  return pathToFileURL(join(ROOT, module)).href;
}

/** The functions that a module exports. @throws {Failure} if it exports any other value */
export function exportedFunctions(module: string, text: string): string[] {
  const names: string[] = [];
  for (const [statement, kind, name] of text.matchAll(/^export (?:async )?([a-z{*]+)\s*(\w*)/gm)) {
    if (kind === "interface" || kind === "type") continue;
    if (kind !== "function" || name === "") {
      throw new Failure(`${module} cannot be left out of the start part: "${statement}" is no function`);
    }
    names.push(name!);
  }
  return names;
}
