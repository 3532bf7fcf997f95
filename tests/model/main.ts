import fc from "fast-check";
import { KNOWN_SEQUENCES } from "./known_sequences.ts";
import { type Operation, sequences } from "./operations.ts";
import { play } from "./play.ts";
import { compiled, inProcess } from "./program.ts";

/**
 * Plays random sequences in a process of its own: an in-process command makes descriptors inheritable for an instant
 * when it starts a holder, and no other test's processes may be started then.
 * Arguments: how many; whether the program is `in-process` or `compiled`; the seed; with a path, one sequence of that
 * seed alone, as a failure tells it.
 */
const [count, way, seed, path] = Deno.args as [string, string, string, string | undefined];

/** How long a smaller sequence that fails as well is looked for, in milliseconds. */
const SHRINK_MS = 60_000;

const program = way === "compiled" ? compiled : inProcess;
/** Of a hundred starts, those by `run`: each starts the compiled program. */
const runIn = way === "compiled" ? 60 : 12;

const begun = performance.now();
let deadline = Infinity;
const property = fc.asyncProperty(sequences(runIn), async (operations) => {
  if (performance.now() > deadline) return;
  try {
    await play(operations, program);
  } catch (error) {
    if (deadline === Infinity) deadline = performance.now() + SHRINK_MS;
    throw error;
  }
});
const once = path === undefined ? {} : { path, endOnFailure: true };
const examples = KNOWN_SEQUENCES.map((operations): [Operation[]] => [[...operations]]);
const numRuns = Number(count) + examples.length;
const result = await fc.check(property, { numRuns, seed: Number(seed), examples, ...once });
if (result.failed) {
  console.log(String(result.errorInstance));
  console.log(`LOCKVISOR_MODEL_REPLAY=${way}:${seed}:${result.counterexamplePath} plays this sequence again`);
  Deno.exit(1);
}
const seconds = ((performance.now() - begun) / 1000).toFixed(1);
console.log(`${result.numRuns} sequences, ${way}, seed ${seed}, ${seconds} s`);
