import { median } from "./paired.ts";

/**
 * How long a guest stands still when it moves by `migrate run`, and how much of that is ours: from the word that all of it has
 * come there to the word that it runs. Two worlds on one machine, a real QEMU, forth and back.
 */
const binary = Deno.env.get("LOCKVISOR_BINARY");
if (binary === undefined) throw new Error("run this by: deno task bench");

const MOVES = 30;

const directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-bench-" }));
const images = `${directory}/images`;
Deno.mkdirSync(images);
Deno.writeTextFileSync(`${directory}/lockvisor.toml`, `[[storage]]\npath = "${images}"\nid = "bench"\n`);
globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));

type WorldName = "one" | "two";

function settingsOf(world: WorldName): Record<string, string> {
  return {
    config: `${directory}/lockvisor.toml`,
    lockspace: `${images}/lockspace`,
    "runtime-dir": `${directory}/run-${world}`,
    "host-id": world,
  };
}

async function lockvisor(world: WorldName, ...args: string[]): Promise<string> {
  const settings = Object.entries(settingsOf(world)).map(([name, value]) => `--${name}=${value}`);
  const { code, stdout, stderr } = await new Deno.Command(binary!, { args: [...settings, ...args] }).output();
  if (code !== 0) {
    throw new Error(`${args.join(" ")} ended with ${code}: ${new TextDecoder().decode(stderr)}`);
  }
  return new TextDecoder().decode(stdout);
}

/** What a move has told at its end, in milliseconds. */
interface Moved {
  stoodStillMs: number;
  handOverMs: number;
  wholeMs: number;
}

async function move(from: WorldName, to: WorldName): Promise<Moved> {
  const parameters = new URLSearchParams(settingsOf(to));
  const start = performance.now();
  const told = await lockvisor(
    from,
    ...["migrate", "run", "vm1", "--json", `--to=local:?${parameters}`],
    `--map=${directory}/${from}.sock=${directory}/${to}.sock`,
  );
  const { stoodStillMs, handOverMs } = JSON.parse(told.trim().split("\n").at(-1)!);
  return { stoodStillMs, handOverMs, wholeMs: performance.now() - start };
}

async function startGuest(): Promise<void> {
  const disk = `${images}/disk.qcow2`;
  await new Deno.Command("qemu-img", { args: ["create", "-q", "-f", "qcow2", disk, "16M"] }).output();
  const settings = Object.entries(settingsOf("one")).map(([name, value]) => `--${name}=${value}`);
  const qmp = `${directory}/one.sock`;
  new Deno.Command(binary!, {
    args: [
      ...settings,
      ...["run", "--name=vm1", `--disk=${disk}`, `--qmp=${qmp}`, "--", "qemu-system-x86_64"],
      ..."-accel tcg -M pc -nodefaults -no-user-config -display none -m 16".split(" "),
      ...["-blockdev", `driver=qcow2,node-name=d0,file.driver=file,file.filename=${disk}`],
      ...["-device", "virtio-blk-pci,drive=d0", "-qmp", `unix:${qmp},server=on,wait=off`],
    ],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn().unref();
  const deadline = performance.now() + 10_000;
  while (!await isThere(qmp)) {
    if (performance.now() > deadline) throw new Error("the guest does not start");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch {
    return false;
  }
}

await lockvisor("one", "init", `${images}/lockspace`);

Deno.bench("a guest moves by migrate run", { n: 1, warmup: 0 }, async () => {
  await startGuest();
  const moves: Moved[] = [];
  for (let count = 0; count < MOVES; count++) {
    const [from, to]: [WorldName, WorldName] = count % 2 === 0 ? ["one", "two"] : ["two", "one"];
    moves.push(await move(from, to));
  }
  await lockvisor("one", "stop", "vm1");
  const figures = (what: keyof Moved) => {
    const values = moves.map((each) => each[what]);
    return `${median(values).toFixed(1)} ms (${Math.min(...values).toFixed(1)} to ${
      Math.max(...values).toFixed(1)
    })`;
  };
  console.log(
    `migrate run, ${MOVES} moves: the guest stands still for ${figures("stoodStillMs")}; of that ours ${
      figures("handOverMs")
    }; the whole command ${figures("wholeMs")}; medians, least and most`,
  );
});
