import { LIBC } from "../../lib/libc/syscall.ts";

/** What one run of a program has cost, in milliseconds. */
export interface Cost {
  wall: number;
  /** Processor time, in the program and in the kernel for it. */
  cpu: number;
}

const RUSAGE_CHILDREN = -1;

const { symbols } = Deno.dlopen(LIBC, { getrusage: { parameters: ["i32", "buffer"], result: "i32" } });

/** Processor time of all processes that we have started and that have ended, in milliseconds; getrusage(2). */
function cpuOfChildren(): number {
  const usage = new BigInt64Array(18); // struct rusage: two struct timeval, then 14 numbers
  symbols.getrusage(RUSAGE_CHILDREN, usage);
  const [seconds, micros, systemSeconds, systemMicros] = usage;
  return Number(seconds! + systemSeconds!) * 1000 + Number(micros! + systemMicros!) / 1000;
}

/** Runs a program to its end and tells what that has cost. @throws {Error} when it fails */
export function costOf(program: string, args: readonly string[], env: Record<string, string>): Cost {
  const before = cpuOfChildren();
  const start = performance.now();
  const { code } = new Deno.Command(program, {
    args: [...args],
    env,
    clearEnv: true,
    stdin: "null",
    stdout: "null",
  }).outputSync();
  const wall = performance.now() - start;
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}`);
  return { wall, cpu: cpuOfChildren() - before };
}
