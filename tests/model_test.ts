import assert from "node:assert/strict";

/** How many sequences the command line plays in the tests' own process; `deno task soak` plays more. */
const SEQUENCES = Number(Deno.env.get("LOCKVISOR_MODEL_SEQUENCES") ?? 1000);
/** How many the compiled program plays, a process for each command. */
const COMPILED = Math.ceil(SEQUENCES / 50);
/** Plays the same sequences for every change; `deno task soak` gives another one each time. */
const SEED = Number(Deno.env.get("LOCKVISOR_MODEL_SEED") ?? 2026);
/** One sequence that failed, as a failure tells it: `WAY:SEED:PATH`, the path being fast-check's. */
const REPLAY = Deno.env.get("LOCKVISOR_MODEL_REPLAY");

/** Plays sequences in a process of its own, and gives what went wrong, or undefined. */
async function playIn(args: string[]): Promise<string | undefined> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--no-check", new URL("model/main.ts", import.meta.url).pathname, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  console.log(said.trimEnd());
  return code === 0 ? undefined : said;
}

const what = REPLAY === undefined
  ? `${SEQUENCES} random sequences, and ${COMPILED} by the compiled program,`
  : `sequence ${REPLAY}`;

Deno.test(`${what} leave the locks, records and generations that a model of the access table foresees`, async () => {
  const [way, seed, ...path] = REPLAY?.split(":") ?? [];
  const all = REPLAY === undefined
    ? [
      // Both halves end at about the same time.
      [`${Math.ceil(SEQUENCES * 0.6)}`, "in-process", `${SEED}`],
      [`${COMPILED}`, "compiled", `${SEED}`],
    ]
    : [["1", way!, seed!, path.join(":")]];
  const rest = REPLAY === undefined ? [[`${Math.floor(SEQUENCES * 0.4)}`, "in-process", `${SEED + 1}`]] : [];
  const [first, second] = all;
  const failures = await Promise.all([
    playIn(first!),
    ...(second === undefined
      ? []
      : [playIn(second).then(async (failure) => failure ?? await playIn(rest[0]!))]),
  ]);
  assert.deepEqual(failures.filter((failure) => failure !== undefined), []);
});
