/**
 * What a start under lock costs beside the start of an empty program that is compiled the same way: whole
 * processes, run in turn. `true` is the guest; one disk, so three keys with two slots each.
 */
const binary = Deno.env.get("LOCKVISOR_BINARY");
const empty = Deno.env.get("LOCKVISOR_EMPTY_BINARY");
if (binary === undefined || empty === undefined) throw new Error("run this by: deno task bench");

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

function execute(program: string, args: string[]): void {
  const { code } = new Deno.Command(program, { args, env, clearEnv: true, stdout: "null" }).outputSync();
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}`);
}

execute(binary, ["init", `${directory}/lockspace`]);

const RUN = ["run", "--name", "bench", "--disk", `${directory}/disk`, "--", "true"];
const ROUNDS = 60;

Deno.bench("empty compiled program", { group: "start", baseline: true, n: ROUNDS, warmup: 5 }, () => {
  execute(empty, []);
});

Deno.bench("lockvisor run … -- true", { group: "start", n: ROUNDS, warmup: 5 }, () => {
  execute(binary, RUN);
});

Deno.bench("flock -n FILE true", { group: "start", n: ROUNDS, warmup: 5 }, () => {
  execute("/usr/bin/flock", ["-n", `${directory}/disk`, "true"]);
});

// Deno.bench runs one program many times and then the other; on a machine whose speed drifts, pairs tell more.
Deno.bench("pairs", { group: "pairs", n: 1, warmup: 0 }, () => {
  const ratios: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const times = [() => execute(empty, []), () => execute(binary, RUN)].map((run) => {
      const start = performance.now();
      run();
      return performance.now() - start;
    });
    ratios.push(times[1]! / times[0]!);
  }
  ratios.sort((one, other) => one - other);
  const [low, middle, high] = [0.25, 0.5, 0.75].map((share) =>
    ratios[Math.floor(share * ROUNDS)]!.toFixed(2)
  );
  console.log(
    `run … -- true takes ${middle} × the empty program (middle half of ${ROUNDS} pairs: ${low} to ${high})`,
  );
});
