import { join } from "node:path";
import { capture, tail } from "./capture.ts";
import { cleanupStack, temporaryFolder } from "./cleanup.ts";
import { Failure } from "./failure.ts";

/**
 * V8 reads JavaScript twice: all of it when it is loaded, and each function again when it first runs, and makes code
 * for its interpreter. That was three quarters of what the start of a guest took beside an empty program's. So a start is
 * rehearsed while the program is built, and the code that V8 has then is built in.
 *
 * It is no machine code, and V8 takes it only if its own version and its flags are those of the rehearsal; otherwise it
 * does its work anew.
 */

/** The status with which a start ends whose command is there but cannot run: its interpreter is missing. */
const NOT_FOUND = 127;

/**
 * Starts a guest with a program that records, in a world of its own. The first start becomes its command and records
 * nothing, but leaves behind what a start finds as a rule: lock files, notes, the record of a guest that has ended. The
 * second does everything up to execve(2), which fails, so it ends and records.
 * @throws {Failure} when the rehearsal does not go that way
 */
export async function rehearse(program: string): Promise<void> {
  using stack = cleanupStack();
  const world = temporaryFolder(stack);
  const [disk, config, unstartable] = ["disk", "lockvisor.toml", "unstartable"].map((name) =>
    join(world, name)
  ) as [string, string, string];
  Deno.writeTextFileSync(disk, "");
  Deno.writeTextFileSync(config, "");
  Deno.writeTextFileSync(unstartable, `#!${join(world, "absent")}\n`, { mode: 0o755 });
  const lockspace = join(world, "lockspace");
  const env = {
    LOCKVISOR_CONFIG: config,
    LOCKVISOR_LOCKSPACE: lockspace,
    LOCKVISOR_RUNTIME_DIR: join(world, "run"),
    LOCKVISOR_HOST_ID: "rehearsal",
  };
  const step = async (status: number, ...args: string[]) => {
    const { code, stderr } = await capture(program, args, { cwd: world, env });
    if (code === status) return;
    throw new Failure(
      `${args[0]} ended with ${code} in the rehearsal of a start, not with ${status}:\n${tail(stderr)}`,
    );
  };
  const start = ["run", "--name", "rehearsal", "--disk", disk, "--"];
  await step(0, "init", lockspace);
  await step(0, ...start, "true");
  await step(NOT_FOUND, ...start, unstartable);
}
