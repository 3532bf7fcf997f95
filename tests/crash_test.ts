import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { FAILPOINTS } from "../lib/failpoint_names.ts";
import * as access from "./crash/access_cases.ts";
import * as attach from "./crash/attach_cases.ts";
import * as breaking from "./crash/break_cases.ts";
import { FAILPOINT_BINARY } from "./crash/crash.ts";
import { DISK_JOB_CASES } from "./crash/disk_job_cases.ts";
import * as hotplug from "./crash/hotplug_cases.ts";
import { MIGRATION_CASES } from "./crash/migration_cases.ts";
import * as running from "./crash/migrate_run_cases.ts";
import * as pause from "./crash/pause_cases.ts";
import * as plug from "./crash/plug_cases.ts";
import * as start from "./crash/start_cases.ts";
import * as stop from "./crash/stop_cases.ts";
import { BINARY, World } from "./support/world.ts";

const VARIABLE = "LOCKVISOR_FAILPOINT";
const ROOT = dirname(import.meta.dirname!);

Deno.test("the program has no failpoints; the one that is built for tests has them", async () => {
  const texts = [VARIABLE, ...FAILPOINTS].sort();
  const foundIn = async (path: string): Promise<string[]> => {
    const args = ["-oaF", ...texts.flatMap((text) => ["-e", text]), path];
    const { stdout } = await new Deno.Command("grep", { args, env: { LC_ALL: "C" } }).output();
    return [...new Set(new TextDecoder().decode(stdout).split("\n").filter((line) => line !== ""))].sort();
  };
  assert.deepEqual(await foundIn(BINARY), []);
  assert.deepEqual(await foundIn(FAILPOINT_BINARY), texts);
});

Deno.test("the program does not heed the variable, and the one for tests refuses an unknown name", async () => {
  await using world = await World.create();
  const args = ["run", "--name", "vm1", "--", "true"];
  const env = (point: string) => ({ env: { [VARIABLE]: point } });
  assert.equal((await world.run(args, env("run.recorded"))).code, 0);
  assert.equal((await world.execute(FAILPOINT_BINARY, args, env("run.recorded"))).signal, "SIGKILL");
  assert.equal((await world.execute(FAILPOINT_BINARY, args, env("run.recorded:2"))).code, 0);
  const unknown = await world.execute(FAILPOINT_BINARY, args, env("run.nowhere"));
  assert.deepEqual([unknown.code, unknown.signal], [70, null], unknown.stderr);
});

Deno.test("the program is killed in some test at each point that is named", () => {
  const cases = [access, attach, breaking, hotplug, pause, plug, running, start, stop].flatMap((module) =>
    Object.values(module).flat()
  );
  const played = new Set([...cases, ...MIGRATION_CASES, ...DISK_JOB_CASES].map(({ at }) => at));
  assert.deepEqual(FAILPOINTS.filter((name) => !played.has(name)), []);
});

Deno.test("each named point stands in one place", () => {
  const texts = ["lib", "plugins"].flatMap((folder) => sources(join(ROOT, folder)));
  const calls = texts.flatMap((text) =>
    [...text.matchAll(/\bfailpoint\("([^"]+)"\)/g)].map(([, name]) => name!)
  );
  assert.deepEqual(calls.sort(), [...FAILPOINTS].sort());
});

function sources(folder: string): string[] {
  return Array.from(Deno.readDirSync(folder)).flatMap(({ name, isDirectory }) =>
    isDirectory ? sources(join(folder, name)) : [Deno.readTextFileSync(join(folder, name))]
  );
}
