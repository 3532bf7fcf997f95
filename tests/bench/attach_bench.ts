/**
 * `lockvisor attach` as a whole command, with 1 000 guests of 4 disks each: 9 000 keys, 18 000 descriptors. Beside it
 * one reading of the kernel's table of locks.
 */
const binary = Deno.env.get("LOCKVISOR_BINARY");
if (binary === undefined) throw new Error("run this by: deno task bench");

const GUESTS = 1000;
const DISKS = 4;
const AT_ONCE = 4;
const RUNS = 9;

const directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-bench-" }));
Deno.writeTextFileSync(`${directory}/lockvisor.toml`, "");
const env = {
  PATH: "/usr/bin:/bin",
  LOCKVISOR_CONFIG: `${directory}/lockvisor.toml`,
  LOCKVISOR_LOCKSPACE: `${directory}/lockspace`,
  LOCKVISOR_RUNTIME_DIR: `${directory}/run`,
  LOCKVISOR_HOST_ID: "bench",
};
const options = { env, clearEnv: true, stdin: "null", stdout: "null", stderr: "null" } as const;
const guests: Deno.ChildProcess[] = [];
globalThis.addEventListener("unload", () => {
  for (const guest of guests) guest.kill("SIGKILL");
  Deno.removeSync(directory, { recursive: true });
});

function attached(): number {
  const { code, stdout } = new Deno.Command(binary!, {
    ...options,
    args: ["attach", "--json"],
    stdout: "piped",
  })
    .outputSync();
  if (code !== 0) throw new Error(`attach ended with ${code}`);
  const found = JSON.parse(new TextDecoder().decode(stdout)).guests as { locked: boolean }[];
  return found.filter(({ locked }) => locked).length;
}

new Deno.Command(binary, { ...options, args: ["init", `${directory}/lockspace`] }).outputSync();
const isGuest = ({ pid }: Deno.ChildProcess) => !Deno.readLinkSync(`/proc/${pid}/exe`).includes("lockvisor");
for (let first = 0; first < GUESTS; first += AT_ONCE) {
  const batch = Array.from({ length: AT_ONCE }, (_, index) => {
    const name = `guest-${first + index}`;
    const disks = Array.from({ length: DISKS }, (_, disk) => `${directory}/${name}-${disk}`);
    for (const disk of disks) Deno.writeTextFileSync(disk, "");
    const args = ["run", "--name", name, ...disks.map((disk) => `--disk=${disk}`), "--", "sleep", "3600"];
    return new Deno.Command(binary!, { ...options, args }).spawn();
  });
  guests.push(...batch);
  while (!batch.every(isGuest)) await new Promise((resolve) => setTimeout(resolve, 2));
}
/** Milliseconds of the clock, and of the processors, in user mode and in the kernel, of one run. */
function measured(): { wall: number; processor: number } {
  const started = performance.now();
  const { stdout } = new Deno.Command("sh", {
    ...options,
    args: ["-c", '"$0" attach --json >/dev/null && times', binary!],
    stdout: "piped",
  }).outputSync();
  const wall = performance.now() - started;
  const [, children = ""] = new TextDecoder().decode(stdout).trim().split("\n");
  const times = [...children.matchAll(/(\d+)m([\d.]+)s/g)];
  const processor = times.reduce(
    (sum, [, minutes, seconds]) => sum + Number(minutes) * 60 + Number(seconds),
    0,
  );
  return { wall, processor: processor * 1000 };
}

function median(numbers: number[]): number {
  return numbers.sort((one, other) => one - other)[Math.floor(numbers.length / 2)]!;
}

if (attached() !== GUESTS) throw new Error("not all guests were found with their locks");

// The machine may be busy with other things: the median, and what the processors did for it.
const runs = Array.from({ length: RUNS }, measured);
const [wall, processor] = [median(runs.map((run) => run.wall)), median(runs.map((run) => run.processor))];
console.log(
  `attach, median of ${RUNS}: ${wall.toFixed(0)} ms, of which the processors worked ${
    processor.toFixed(0)
  } ms`,
);

const group = `${GUESTS} guests with ${DISKS} disks each`;
Deno.bench("read /proc/locks", { group, baseline: true, n: 10, warmup: 1 }, () => {
  Deno.readTextFileSync("/proc/locks");
});
Deno.bench("lockvisor attach", { group, n: 5, warmup: 1 }, () => {
  attached();
});
