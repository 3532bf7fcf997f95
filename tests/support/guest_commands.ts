import assert from "node:assert/strict";
import { exitStatusOf } from "../../lib/errors.ts";
import { everything } from "./refused.ts";
import type { Finished, World } from "./world.ts";

/** What the commands are tried with beside the guest. */
export interface Disks {
  /** One that the guest has, if it is there. */
  held: string;
  /** One that nobody has. */
  spare: string;
}

/** Every command that is told which guest is meant, with arguments that would change something if it were let. */
export const GUEST_COMMANDS = {
  "stop": (guest) => ["stop", guest],
  "wait": (guest) => ["wait", guest, "--timeout", "100ms"],
  "status": (guest) => ["status", guest],
  "attach": (guest) => ["attach", guest],
  "acquire": (guest, { spare }) => ["acquire", guest, "--disk", spare],
  "release": (guest, { held }) => ["release", guest, "--disk", held],
  "pause": (guest) => ["pause", guest],
  "pause --release": (guest) => ["pause", guest, "--release"],
  "resume": (guest) => ["resume", guest],
  "break": (guest) => ["break", guest, "--reason", "test"],
} as const satisfies Record<string, (guest: string, disks: Disks) => string[]>;

/** The name of such a command. */
export type GuestCommand = keyof typeof GUEST_COMMANDS;

/** The arguments of such a command. */
export function argumentsOf(command: GuestCommand, guest: string, disks: Disks): string[] {
  const make: (guest: string, disks: Disks) => string[] = GUEST_COMMANDS[command];
  return make(guest, disks);
}

/**
 * The flocks on the files of a world's lockspace that the kernel shows: file, mode and pid of who took it. The kernel
 * gives its table in pieces: one look, while others lock and unlock, may lack a lock or have it twice.
 */
export function kernelLocks(world: World): string[] {
  const looks = Array.from({ length: LOOKS }, () => lookAtLocks(world));
  return [...new Set(looks.flat())].sort();
}

const LOOKS = 5;

function lookAtLocks(world: World): string[] {
  const names = new Map<string, string>();
  for (const { name, isFile } of Deno.readDirSync(world.lockspace)) {
    if (isFile) names.set(String(Deno.lstatSync(`${world.lockspace}/${name}`).ino), name);
  }
  return Deno.readTextFileSync("/proc/locks").split("\n").flatMap((line) => {
    const [, mode, pid, inode] = /FLOCK +\S+ +(\S+) +(-?\d+) +\w+:\w+:(\d+)/.exec(line) ?? [];
    const name = names.get(inode ?? "");
    return name === undefined ? [] : [`${name} ${mode} ${pid}`];
  });
}

/** How a command refuses. */
export interface Refusal {
  code: number;
  says: RegExp;
  /**
   * `records`: it may take the record of a guest that is dead away. `lockspace`: it may leave empty lock files, and
   * count a generation on, as a start may that is refused.
   */
  touches?: "records" | "lockspace";
}

/** Files and locks that a refused command leaves alone; the empty files by which commands take turns are none. */
async function stateOf(world: World, touches: Refusal["touches"]): Promise<unknown> {
  const guests = `${world.runtimeDir}/guests`;
  const touched = touches === "records" ? guests : touches === "lockspace" ? world.lockspace : undefined;
  const files = (await everything(world)).filter((line) =>
    !line.startsWith(`${guests} `) && !/^\S+\.lock f 600 \d+ 0 /.test(line) &&
    (touched === undefined || !line.startsWith(touched))
  );
  return { files, locks: kernelLocks(world) };
}

/**
 * Has a command refused, as text and as JSON: the exit status of its error code, one line on standard error, nothing
 * else on standard output than the error as JSON when that is wanted. Files and locks stay as they were.
 */
export async function assertRefusedTwice(
  world: World,
  args: readonly string[],
  { code, says, touches }: Refusal,
  run: (args: string[]) => Promise<Finished> = (words) => world.run(words),
): Promise<void> {
  const before = await stateOf(world, touches);
  const label = args.join(" ");
  for (const wanted of ["text", "json"]) {
    const result = await run(wanted === "json" ? [...args, "--json"] : [...args]);
    assert.deepEqual(
      { code: result.code, signal: result.signal },
      { code, signal: null },
      `${label}: ${result.stderr}`,
    );
    assert.match(result.stderr, /^lockvisor: \P{Cc}+\n$/u, `${label}: one line`);
    assert.match(result.stderr, says, label);
    if (wanted === "text") assert.equal(result.stdout, "", label);
    else assertErrorObject(result, label);
  }
  assert.deepEqual(await stateOf(world, touches), before, `${label}: nothing has changed`);
}

/** The error as JSON says the same as the line on standard error. */
export function assertErrorObject({ code, stdout, stderr }: Finished, label: string): void {
  assert.match(stdout, /^[^\n]+\n$/, `${label}: one line of JSON`);
  const { error } = JSON.parse(stdout);
  assert.equal(`lockvisor: ${error.message}\n`, stderr, label);
  assert.equal(exitStatusOf(error.code), code, label);
}

/** Has a command carried out, with nothing on standard error. @returns its results */
export async function assertDone(world: World, args: readonly string[]): Promise<string> {
  const result = await world.run([...args]);
  assert.deepEqual({ code: result.code, stderr: result.stderr }, { code: 0, stderr: "" }, args.join(" "));
  return result.stdout;
}
