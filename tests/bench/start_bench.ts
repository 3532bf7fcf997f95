import { anyOf, estimate, estimateText, median } from "./paired.ts";
import { type Cost, costOf } from "./process_cost.ts";

/**
 * What a start under lock costs beside the start of an empty program that is compiled the same way: whole processes.
 * `true` is the guest; one disk, so three keys with two slots each.
 *
 * Where a file lies in memory makes one copy of a program up to a tenth slower than another, for as long as it stays
 * there: so there are several fresh copies of each. Machines speed up and slow down: so the two are run in pairs, in
 * random order, and the figure is the median of the pairs' ratios.
 */
const binary = Deno.env.get("LOCKVISOR_BINARY");
const empty = Deno.env.get("LOCKVISOR_EMPTY_BINARY");
const copies = Deno.env.get("LOCKVISOR_BENCH_COPIES");
if (binary === undefined || empty === undefined || copies === undefined) {
  throw new Error("run this by: deno task bench");
}

const COPIES = 4;
const PAIRS = Number(Deno.env.get("LOCKVISOR_BENCH_PAIRS") ?? 100);

const directory = Deno.makeTempDirSync({ prefix: "lockvisor-bench-" });
globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));
Deno.writeTextFileSync(`${directory}/disk`, "");
Deno.writeTextFileSync(`${directory}/lockvisor.toml`, "");
const env = {
  PATH: "/usr/bin:/bin",
  LOCKVISOR_CONFIG: `${directory}/lockvisor.toml`,
  LOCKVISOR_LOCKSPACE: `${directory}/lockspace`,
  LOCKVISOR_RUNTIME_DIR: `${directory}/run`,
  LOCKVISOR_HOST_ID: "bench",
};
const RUN = ["run", "--name", "bench", "--disk", `${directory}/disk`, "--", "true"];

costOf(binary, ["init", `${directory}/lockspace`], env);

Deno.bench("start under lock, beside an empty program", { n: 1, warmup: 0 }, () => {
  const runs = { run: freshCopies(binary, "run"), empty: freshCopies(empty, "empty") };
  const measured = { run: [] as Cost[], empty: [] as Cost[] };
  const start = { run: RUN, empty: [] };
  for (const name of ["run", "empty"] as const) {
    for (const copy of runs[name]) costOf(copy, start[name], env); // into memory, and the lock files are made
  }
  for (let pair = 0; pair < PAIRS; pair++) {
    const order = Math.random() < 0.5 ? ["run", "empty"] as const : ["empty", "run"] as const;
    for (const name of order) measured[name].push(costOf(anyOf(runs[name]), start[name], env));
  }
  const ratios = (what: keyof Cost) =>
    measured.run.map((cost, pair) => cost[what] / measured.empty[pair]![what]);
  const middle = (name: "run" | "empty", what: keyof Cost) =>
    `${median(measured[name].map((cost) => cost[what])).toFixed(0)} ms`;
  console.log(
    `run … -- true takes ${estimateText(estimate(ratios("wall")))} times as long as the empty program: ` +
      `${middle("run", "wall")} and ${
        middle("empty", "wall")
      }, medians of ${PAIRS} pairs, ${COPIES} copies of each`,
  );
  console.log(
    `processor time: ${estimateText(estimate(ratios("cpu")))} times as much: ` +
      `${middle("run", "cpu")} and ${middle("empty", "cpu")}`,
  );
});

Deno.bench("flock -n FILE true", { n: PAIRS, warmup: 5 }, () => {
  costOf("/usr/bin/flock", ["-n", `${directory}/disk`, "true"], env);
});

/** Copies of a program that have reached the disk: writing them out does not disturb what is measured. */
function freshCopies(program: string, name: string): string[] {
  return Array.from({ length: COPIES }, (_, number) => {
    const copy = `${copies}/${name}-${number}`;
    Deno.copyFileSync(program, copy);
    const file = Deno.openSync(copy, { read: true });
    file.syncSync();
    file.close();
    return copy;
  });
}
