import { LockvisorError } from "../../lib/errors.ts";
import type { LockManager } from "../../lib/manager/lock_manager.ts";
import { loadPlugin } from "../../lib/manager/plugin.ts";
import { driverConfigOf, managerOptionsOf } from "./drivers.ts";
import type { Answer, Question } from "./manager_process.ts";
import type { World } from "./world.ts";

// Managers for a test in a process of their own: one question a line, one answer a line, all about one plugin.
const [plugin, lockspace, runtimeDir, hostId, directory] = Deno.args as [
  string,
  string,
  string,
  string,
  string,
];
const world = { lockspace, runtimeDir, hostId, directory } as World;
const loaded = await loadPlugin(plugin, driverConfigOf(world));
const managers: LockManager[] = [];

async function answer(question: Question): Promise<unknown> {
  if (question.kind === "new") {
    return managers.push(loaded.newManager("domain", question.mode, managerOptionsOf(world))) - 1;
  }
  if (question.kind === "unload") return loaded.unload();
  const method = managers[question.manager]![question.call] as (...args: unknown[]) => unknown;
  return await method.apply(managers[question.manager], question.args);
}

function failure(error: unknown): NonNullable<Answer["error"]> {
  if (error instanceof LockvisorError) {
    return { code: error.code, message: error.message, details: error.details };
  }
  return {
    code: "none",
    message: error instanceof Error ? error.stack ?? error.message : String(error),
    details: {},
  };
}

const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
let rest = "";
for await (const chunk of lines) {
  const complete = (rest + chunk).split("\n");
  rest = complete.pop()!;
  for (const line of complete) {
    let reply: Answer;
    try {
      reply = { value: await answer(JSON.parse(line)) };
    } catch (error) {
      reply = { error: failure(error) };
    }
    console.log(JSON.stringify(reply));
  }
}
