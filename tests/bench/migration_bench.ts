import { QmpClient } from "../../lib/qmp/client.ts";
import { median } from "./paired.ts";

/**
 * What the hand-over of locks adds to a migration: whole commands, beside what QEMU takes for itself in the same run. Two
 * worlds on one machine, a real QEMU on 1, 4 and 16 qcow2 disks, forth and back.
 */
const binary = Deno.env.get("LOCKVISOR_BINARY");
if (binary === undefined) throw new Error("run this by: deno task bench");

const DISKS = [1, 4, 16];
const ROUNDS = 10;

type WorldName = "one" | "two";

const directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-bench-" }));
const images = `${directory}/images`;
Deno.mkdirSync(images);
Deno.writeTextFileSync(`${directory}/lockvisor.toml`, `[[storage]]\npath = "${images}"\nid = "bench"\n`);
const running = new Set<Deno.ChildProcess>();
globalThis.addEventListener("unload", () => {
  for (const process of running) process.kill("SIGKILL");
  Deno.removeSync(directory, { recursive: true });
});

function optionsOf(world: WorldName): Deno.CommandOptions {
  return {
    clearEnv: true,
    env: {
      PATH: "/usr/bin:/bin",
      LOCKVISOR_CONFIG: `${directory}/lockvisor.toml`,
      LOCKVISOR_LOCKSPACE: `${images}/lockspace`,
      LOCKVISOR_RUNTIME_DIR: `${directory}/run-${world}`,
      LOCKVISOR_HOST_ID: world,
    },
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  };
}

/** Runs one of our commands to its end. @returns milliseconds */
function timed(world: WorldName, ...args: string[]): number {
  const start = performance.now();
  const { code } = new Deno.Command(binary!, { ...optionsOf(world), args }).outputSync();
  if (code !== 0) throw new Error(`${args.join(" ")} ended with ${code}`);
  return performance.now() - start;
}

function start(program: string, args: readonly string[], world: WorldName): Deno.ChildProcess {
  const process = new Deno.Command(program, { ...optionsOf(world), args: [...args] }).spawn();
  running.add(process);
  process.status.then(() => running.delete(process));
  return process;
}

/** The monitor of a QEMU as soon as it answers. */
async function monitorAt(socket: string): Promise<QmpClient> {
  const deadline = performance.now() + 10_000;
  while (true) {
    try {
      return await QmpClient.connect(socket, { deadlineMs: 2000 });
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}

async function asked(socket: string, command: string, args?: Record<string, unknown>): Promise<unknown> {
  const monitor = await monitorAt(socket);
  try {
    return await monitor.execute(command, args);
  } finally {
    await monitor.close();
  }
}

function diskPaths(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${images}/${count}-${index}.qcow2`);
}

function qemu(disks: readonly string[], socket: string, ...extra: string[]): string[] {
  return [
    "qemu-system-x86_64",
    ..."-accel tcg -M pc -nodefaults -no-user-config -display none -m 16".split(" "),
    ...disks.flatMap((disk, index) => [
      "-blockdev",
      `driver=qcow2,node-name=d${index},file.driver=file,file.filename=${disk}`,
      "-device",
      `virtio-blk-pci,drive=d${index}`,
    ]),
    "-qmp",
    `unix:${socket},server=on,wait=off`,
    ...extra,
  ];
}

/** What one migration took, in milliseconds. */
interface Costs {
  prepare: number;
  in: number;
  plain: number;
  complete: number;
  sending: number;
  downtime: number;
}

async function migrate(
  disks: readonly string[],
  { from, to, round }: { from: WorldName; to: WorldName; round: number },
): Promise<Costs> {
  const [source, destination] = [
    `${directory}/${from}-${round}.sock`,
    `${directory}/${to}-${round + 1}.sock`,
  ];
  const stream = `${directory}/stream-${round}`;
  const ticket = `${directory}/ticket`;
  const prepare = timed(from, "migrate", "prepare", "vm1", "--to=local:", `--ticket=${ticket}`);

  // The same QEMU without locks, to its first answer: what is beyond that is ours.
  const plainSocket = `${directory}/plain-${round}.sock`;
  const [plainProgram, ...plainArgs] = qemu(disks, plainSocket, "-incoming", "defer");
  const plainStart = performance.now();
  const plainQemu = start(plainProgram!, plainArgs, to);
  await (await monitorAt(plainSocket)).close();
  const plain = performance.now() - plainStart;
  plainQemu.kill("SIGKILL");
  await plainQemu.status;

  const inStart = performance.now();
  const command = qemu(disks, destination, "-incoming", `unix:${stream}`);
  start(binary!, ["migrate", "in", `--ticket=${ticket}`, `--qmp=${destination}`, "--", ...command], to);
  await (await monitorAt(destination)).close();
  const begun = performance.now() - inStart;

  await asked(source, "migrate", { uri: `unix:${stream}` });
  const sent = await whenSent(source);
  const completing = timed(from, "migrate", "complete", "vm1") + timed(to, "migrate", "complete", "vm1");
  return {
    prepare,
    in: begun - plain,
    plain,
    complete: completing,
    sending: sent["total-time"],
    downtime: sent.downtime,
  };
}

async function whenSent(socket: string): Promise<{ "total-time": number; downtime: number }> {
  const monitor = await monitorAt(socket);
  try {
    while (true) {
      const state = await monitor.execute("query-migrate") as {
        status: string;
        "total-time": number;
        downtime: number;
      };
      if (state.status === "completed") return state;
      if (state.status === "failed") throw new Error("the migration failed");
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  } finally {
    await monitor.close();
  }
}

timed("one", "init", `${images}/lockspace`);
for (const count of DISKS) {
  Deno.bench(`hand-over of a guest with ${count} disks`, { n: 1, warmup: 0 }, async () => {
    const disks = diskPaths(count);
    for (const disk of disks) {
      new Deno.Command("qemu-img", { args: ["create", "-q", "-f", "qcow2", disk, "16M"] }).outputSync();
    }
    const first = `${directory}/one-0.sock`;
    const args = ["run", "--name=vm1", `--qmp=${first}`, ...disks.map((disk) => `--disk=${disk}`), "--"];
    start(binary!, [...args, ...qemu(disks, first)], "one");
    await (await monitorAt(first)).close();
    const costs: Costs[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const [from, to]: WorldName[] = round % 2 === 0 ? ["one", "two"] : ["two", "one"];
      costs.push(await migrate(disks, { from: from!, to: to!, round }));
    }
    timed(ROUNDS % 2 === 0 ? "one" : "two", "stop", "vm1");
    const middle = (what: keyof Costs) => median(costs.map((cost) => cost[what])).toFixed(0);
    console.log(
      `${count} disks: prepare ${middle("prepare")} ms, in ${middle("in")} ms more than the ${
        middle("plain")
      } ms of that QEMU alone, complete on both sides ${middle("complete")} ms; QEMU itself: ${
        middle("sending")
      } ms, of which the guest stood still for ${
        middle("downtime")
      } ms, and nothing of ours is in those; medians of ${ROUNDS} migrations`,
    );
  });
}
