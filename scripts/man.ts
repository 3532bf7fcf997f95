import { join } from "node:path";
import { COMMANDS } from "../lib/cli/commands.ts";
import { manualPage } from "../lib/cli/manual_page.ts";
import { VERSION } from "../lib/version.ts";
import { runScript } from "./failure.ts";
import { DIST } from "./project.ts";

/** Writes the manual page, for `man -l` and for packages, in one step: somebody may be copying it. */
export function writeManualPage(): string {
  const path = join(DIST, "lockvisor.8");
  Deno.mkdirSync(DIST, { recursive: true });
  const beside = `${path}.${Deno.pid}.new`;
  Deno.writeTextFileSync(beside, manualPage(COMMANDS, VERSION));
  Deno.renameSync(beside, path);
  return path;
}

function main(): Promise<number> {
  console.log(writeManualPage());
  return Promise.resolve(0);
}

if (import.meta.main) await runScript("man", main);
