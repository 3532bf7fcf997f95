import { join } from "node:path";
import { COMMANDS } from "../lib/cli/commands.ts";
import { manualPage } from "../lib/cli/manual_page.ts";
import { VERSION } from "../lib/version.ts";
import { runScript } from "./failure.ts";
import { DIST } from "./project.ts";

/** Writes the manual page, for `man -l` and for packages. */
function main(): Promise<number> {
  const path = join(DIST, "lockvisor.8");
  Deno.mkdirSync(DIST, { recursive: true });
  const beside = `${path}.${Deno.pid}.new`; // whoever copies the page meanwhile gets a whole one
  Deno.writeTextFileSync(beside, manualPage(COMMANDS, VERSION));
  Deno.renameSync(beside, path);
  console.log(path);
  return Promise.resolve(0);
}

if (import.meta.main) await runScript("man", main);
