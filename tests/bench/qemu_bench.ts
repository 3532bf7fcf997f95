import { anyOf, estimate, estimateText, median } from "./paired.ts";
import { type Cost, costOf } from "./process_cost.ts";

/**
 * What it costs a start to read QEMU's options and a chain of three images, beside the same locks given by hand: whole
 * processes in pairs, as in start_bench.ts. The program is called like a QEMU and ends at once.
 */
const binary = Deno.env.get("LOCKVISOR_BINARY");
const copies = Deno.env.get("LOCKVISOR_BENCH_COPIES");
if (binary === undefined || copies === undefined) throw new Error("run this by: deno task bench");

const COPIES = 4;
const PAIRS = Number(Deno.env.get("LOCKVISOR_BENCH_PAIRS") ?? 100);

const directory = Deno.makeTempDirSync({ prefix: "lockvisor-bench-" });
globalThis.addEventListener("unload", () => Deno.removeSync(directory, { recursive: true }));
Deno.writeTextFileSync(`${directory}/lockvisor.toml`, "");
Deno.symlinkSync("/usr/bin/true", `${directory}/qemu-system-true`);
const env = {
  PATH: "/usr/bin:/bin",
  LOCKVISOR_CONFIG: `${directory}/lockvisor.toml`,
  LOCKVISOR_LOCKSPACE: `${directory}/lockspace`,
  LOCKVISOR_RUNTIME_DIR: `${directory}/run`,
  LOCKVISOR_HOST_ID: "bench",
};
const IMAGES = ["base", "middle", "top"].map((name) => `${directory}/${name}.qcow2`);
for (const [index, image] of IMAGES.entries()) {
  const backing = index === 0 ? [] : ["-b", IMAGES[index - 1]!, "-F", "qcow2"];
  costOf("qemu-img", ["create", "-q", "-f", "qcow2", ...backing, image, "1M"], env);
}

const QEMU = [
  `${directory}/qemu-system-true`,
  ..."-name bench -accel kvm -M q35,accel=kvm -cpu host -smp 4 -m 4096 -nodefaults -no-user-config -display none"
    .split(" "),
  ..."-netdev tap,id=n0 -device virtio-net-pci,netdev=n0 -chardev socket,id=q,path=/q,server=on,wait=off"
    .split(" "),
  ..."-device virtio-rng-pci -device virtio-balloon-pci -rtc base=utc -S".split(" "),
  "-drive",
  `file=${IMAGES[2]},format=qcow2,if=none,id=d0,cache=none,aio=native,discard=unmap`,
  ..."-device virtio-blk-pci,drive=d0,bootindex=1".split(" "),
];
const byHand = [
  "--disk",
  IMAGES[2]!,
  ...IMAGES.slice(0, 2).flatMap((image) => ["--disk", `${image},access=readonly`]),
];
const RUNS = {
  read: ["run", "--", ...QEMU],
  byHand: ["run", "--no-auto", "--name", "bench", ...byHand, "--", ...QEMU],
};

costOf(binary, ["init", `${directory}/lockspace`], env);

Deno.bench(
  "start of a QEMU with a chain of three, beside the same locks by hand",
  { n: 1, warmup: 0 },
  () => {
    const programs = Array.from({ length: COPIES }, (_, number) => freshCopy(binary, `qemu-${number}`));
    const measured = { read: [] as Cost[], byHand: [] as Cost[] };
    for (const name of ["read", "byHand"] as const) {
      for (const copy of programs) {
        costOf(copy, RUNS[name], env);
      }
    }
    for (let pair = 0; pair < PAIRS; pair++) {
      const copy = anyOf(programs);
      const order = Math.random() < 0.5 ? ["read", "byHand"] as const : ["byHand", "read"] as const;
      for (const name of order) measured[name].push(costOf(copy, RUNS[name], env));
    }
    for (const what of ["wall", "cpu"] as const) {
      const differences = measured.read.map((cost, pair) => cost[what] - measured.byHand[pair]![what]);
      console.log(
        `${what}: reading QEMU's options and three images takes ${
          estimateText(estimate(differences))
        } ms more: ` +
          `${median(measured.read.map((cost) => cost[what])).toFixed(1)} ms and ` +
          `${median(measured.byHand.map((cost) => cost[what])).toFixed(1)} ms, medians of ${PAIRS} pairs`,
      );
    }
  },
);

/** A copy of a program that has reached the disk: writing it out does not disturb what is measured. */
function freshCopy(program: string, name: string): string {
  const copy = `${copies}/${name}`;
  Deno.copyFileSync(program, copy);
  const file = Deno.openSync(copy, { read: true });
  file.syncSync();
  file.close();
  return copy;
}
