import assert from "node:assert/strict";
import { BINARY, type Finished, type World } from "./world.ts";

/** How a bad input must be answered. */
export interface Answer {
  code: number;
  /** What the one line on standard error says; it names the object. */
  says: RegExp;
}

/** Options of a start that must fail. */
export interface RefusedOptions {
  env?: Record<string, string>;
  /** Starts lockvisor in another way than as a child of this process, for instance as another user. */
  execute?: (args: string[]) => Promise<Finished>;
}

/**
 * Runs a command that must fail and must change nothing at all: not in the lockspace, not among the records, not
 * beside the disks.
 */
export async function assertRefused(
  world: World,
  args: string[],
  answer: Answer,
  options: RefusedOptions = {},
): Promise<void> {
  const before = await everything(world);
  const execute = options.execute ?? ((words) => runBounded(world, words, options.env));
  const result = await execute(args);
  assertAnswer(result, answer);
  assert.deepEqual(await everything(world), before, "nothing has changed");
}

/** Runs lockvisor, but kills it (exit status 137) when it hangs, as on a FIFO that nobody opens. */
export function runBounded(
  world: World,
  args: string[],
  env: Record<string, string> = {},
): Promise<Finished> {
  return world.execute("timeout", ["--signal=KILL", "30", BINARY, ...args], { env });
}

/** {@linkcode assertRefused} for a start: the guest's command would leave a file behind if it ran. */
export function assertNotStarted(
  world: World,
  runArgs: string[],
  answer: Answer,
  options: RefusedOptions = {},
): Promise<void> {
  const args = ["run", ...runArgs, "--", "touch", `${world.directory}/started`];
  return assertRefused(world, args, answer, options);
}

/** The exit status, an empty standard output and one printable line on standard error. */
export function assertAnswer(
  { code, signal, stdout, stderr }: Finished,
  { code: wanted, says }: Answer,
): void {
  assert.deepEqual({ code, signal }, { code: wanted, signal: null }, stderr);
  assert.match(
    stderr,
    /^lockvisor: \P{Cc}+\n$/u,
    "one line without control characters",
  );
  assert.match(stderr, says);
  assert.equal(stdout, "");
}

/**
 * All files of a world, disks included: by find(1), which knows names that are no UTF-8 and follows no link.
 * Inode and time of change tell a rewritten file from an untouched one.
 */
export async function everything(world: World): Promise<string[]> {
  const format = "%p %y %m %U %s %i %T@ %l\\0";
  const { code, stdout, stderr } = await world.execute("find", [world.directory, "-printf", format]);
  assert.equal(code, 0, stderr);
  return stdout.split("\0").sort();
}
