import { join } from "node:path";
import { Failure, runScript, USAGE } from "./failure.ts";
import { ROOT } from "./project.ts";

/** A test in its long form. */
interface Part {
  path: string;
  /** The environment variable by which the test takes its length, and what it is here. */
  variable: string;
  rounds: string;
  /** Other variables that make it long. */
  more?: Record<string, string>;
  /** The environment variable by which the test takes a seed. Here that is by chance, and told. */
  seed?: string;
}

/** By name: what takes longer than every change can wait for. The tests run in a short form with all others. */
const PARTS: Record<string, Part> = {
  race: { path: "tests/race_test.ts", variable: "LOCKVISOR_RACE_ROUNDS", rounds: "1000" },
  gc: { path: "tests/gc_race_test.ts", variable: "LOCKVISOR_GC_ROUNDS", rounds: "1000" },
  hotplug: { path: "tests/hotplug_loop_test.ts", variable: "LOCKVISOR_HOTPLUG_ROUNDS", rounds: "100" },
  jobs: { path: "tests/crash/disk_job_test.ts", variable: "LOCKVISOR_JOB_REMEDIES", rounds: "3" },
  agent: {
    path: "tests/agent_kill_test.ts",
    variable: "LOCKVISOR_AGENT_KILLS",
    rounds: "20",
    more: { LOCKVISOR_AGENT_GUESTS: "500" },
  },
  migration: {
    path: "tests/migrate_back_and_forth_test.ts",
    variable: "LOCKVISOR_MIGRATIONS",
    rounds: "500",
  },
  moves: { path: "tests/migrate_run_loop_test.ts", variable: "LOCKVISOR_LOCAL_MOVES", rounds: "200" },
  ssh: { path: "tests/migrate_ssh_loop_test.ts", variable: "LOCKVISOR_SSH_MOVES", rounds: "20" },
  model: {
    path: "tests/model_test.ts",
    variable: "LOCKVISOR_MODEL_SEQUENCES",
    rounds: "20000",
    seed: "LOCKVISOR_MODEL_SEED",
  },
};

/** Longer than all parts take, one after the other on a busy machine, in minutes. */
const MINUTES = "720";

/**
 * Runs tests in their long form, all or those that are named. Variables that are set already keep their values. Ends as
 * the tests do: with the line `N passed, N failed`.
 */
async function main(): Promise<number> {
  const unknown = Deno.args.find((name) => !Object.hasOwn(PARTS, name));
  if (unknown !== undefined) {
    throw new Failure(`there is no part "${unknown}"; there are: ${Object.keys(PARTS).join(", ")}`, {
      status: USAGE,
    });
  }
  const parts = (Deno.args.length === 0 ? Object.keys(PARTS) : Deno.args).map((name) => PARTS[name]!);
  const lengths = parts.flatMap(({ variable, rounds, more = {} }) =>
    Object.entries({ [variable]: rounds, ...more }).map((
      [name, value],
    ) => [name, Deno.env.get(name) ?? value])
  );
  const seeds = parts.flatMap(({ seed }) =>
    seed === undefined ? [] : [[seed, Deno.env.get(seed) ?? randomSeed()]]
  );
  for (const [variable, seed] of seeds) console.log(`${variable}=${seed} plays the same again`);
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", join(ROOT, "scripts/test.ts"), ...parts.map(({ path }) => path)],
    cwd: ROOT,
    env: { LOCKVISOR_TEST_MINUTES: MINUTES, ...Object.fromEntries([...lengths, ...seeds]) },
    stdin: "null",
  }).spawn().status;
  return code;
}

function randomSeed(): string {
  return `${Math.floor(Math.random() * 2 ** 31)}`;
}

if (import.meta.main) await runScript("soak", main);
