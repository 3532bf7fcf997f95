import fc from "fast-check";
import { sequences } from "./operations.ts";
import { play } from "./play.ts";
import { compiled, inProcess } from "./program.ts";

/**
 * Plays random sequences in a process of its own: an in-process command makes descriptors inheritable for an instant
 * when it starts a holder, and no other test's processes may be started then.
 * Arguments: how many; whether the program is `in-process` or `compiled`; the seed; with a path, one sequence of that
 * seed alone, as a failure tells it.
 */
const [count, way, seed, path] = Deno.args as [string, string, string, string | undefined];
const program = way === "compiled" ? compiled : inProcess;
const runIn = way === "compiled" ? 60 : 12;
const begun = performance.now();
const result = await fc.check(
  fc.asyncProperty(sequences(runIn), (operations) => play(operations, program)),
  {
    numRuns: Number(count),
    seed: Number(seed),
    ...(path === undefined ? {} : { path, endOnFailure: true }),
    interruptAfterTimeLimit: 20 * 60_000,
    markInterruptAsFailure: true,
  },
);
if (result.failed) {
  console.log(String(result.errorInstance ?? "the time is over"));
  console.log(`LOCKVISOR_MODEL_SEED=${way}:${seed}:${result.counterexamplePath} plays this sequence again`);
  Deno.exit(1);
}
const seconds = ((performance.now() - begun) / 1000).toFixed(1);
console.log(`${result.numRuns} sequences, ${way}, seed ${seed}, ${seconds} s`);
