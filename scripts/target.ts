import { Failure, USAGE } from "./failure.ts";

/** A machine that a program can be built for, in the words of `deno compile`. */
export type Target = "x86_64-unknown-linux-gnu" | "aarch64-unknown-linux-gnu";

const TARGETS: readonly Target[] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/** The `e_machine` field of an ELF header, by target. */
const ELF_MACHINE: Record<Target, number> = {
  "x86_64-unknown-linux-gnu": 62,
  "aarch64-unknown-linux-gnu": 183,
};

/** The text as a target, or the failure that lists all of them. */
export function parseTarget(text: string): Target {
  const target = TARGETS.find((known) => known === text);
  if (target !== undefined) return target;
  throw new Failure(`unknown target "${text}": lockvisor is built for ${TARGETS.join(" and ")}`, {
    status: USAGE,
  });
}

/** The machine that this script runs on. */
export function hostTarget(): Target {
  return parseTarget(Deno.build.target);
}

/** Refuses a program for another machine, which a runtime that somebody named in DENORT_BIN may lead to. */
export function checkMachine(path: string, target: Target): void {
  using file = Deno.openSync(path);
  const header = new Uint8Array(20);
  const isElf = file.readSync(header) === header.length && header[0] === 0x7f && header[1] === 0x45;
  const machine = new DataView(header.buffer).getUint16(18, true);
  if (isElf && machine === ELF_MACHINE[target]) return;
  throw new Failure(
    `the program that was built is not one for ${target} (ELF machine ${machine}); check DENORT_BIN`,
  );
}
