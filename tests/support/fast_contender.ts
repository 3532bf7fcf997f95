import { slotsOf } from "./migration_world.ts";

/** Between two looks, in milliseconds. */
const LOOK_MS = 8;

/**
 * Looks all the time whether each process of a guest has a slot of each key, and tries to be the guest's disk's owner itself:
 * as a start does, slot a and then slot b of each key in ascending order, giving all back when one is refused.
 */
export class FastContender implements AsyncDisposable {
  /** What must not be, one line each. */
  readonly faults: string[] = [];
  passes = 0;
  readonly #pids = new Map<number, { who: string; keys: number }>();
  #isTrying = false;
  #trying: Promise<void> = Promise.resolve();

  constructor(readonly lockspace: string, readonly keys: readonly string[]) {}

  /** From now on it must have a slot of as many keys as it has open, for as long as it lives. */
  watch(pid: number, who: string): void {
    this.#pids.set(pid, { who, keys: slotsOf(pid, this.lockspace).size });
  }

  start(): void {
    this.#isTrying = true;
    this.#trying = (async () => {
      while (this.#isTrying) {
        this.look();
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    })();
  }

  async stop(): Promise<void> {
    this.#isTrying = false;
    await this.#trying;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  look(): void {
    for (const [pid, { who, keys }] of this.#pids) {
      const slots = slotsOrGone(pid, this.lockspace);
      if (slots === "gone") {
        this.#pids.delete(pid);
        continue;
      }
      const held = [...slots.values()].filter((each) => each !== "").length;
      // It may have ended while it was looked at.
      if (held < keys && slotsOrGone(pid, this.lockspace) !== "gone" && isUnheld(pid, this.lockspace, keys)) {
        this.#fault(`${who} (pid ${pid}) had a slot of only ${held} of its ${keys} keys`);
      }
    }
    const living = [...this.#pids.keys()];
    if (this.#wins() && living.some((pid) => slotsOrGone(pid, this.lockspace) !== "gone")) {
      this.#fault("a contender got all locks while a process of the guest lived");
    }
    this.passes++;
  }

  #wins(): boolean {
    const files: Deno.FsFile[] = [];
    try {
      for (const key of [...this.keys].sort()) {
        for (const slot of ["a", "b"]) {
          const file = openLockFile(`${this.lockspace}/${key}.${slot}`);
          if (file === undefined) return false;
          files.push(file);
          if (!file.tryLockSync(true)) return false;
        }
      }
      return true;
    } finally {
      for (const file of files.reverse()) file.close();
    }
  }

  #fault(text: string): void {
    if (!this.faults.includes(text)) this.faults.push(text);
  }
}

/** Again, since the kernel gives what it tells of a process in pieces. */
function isUnheld(pid: number, lockspace: string, keys: number): boolean {
  const slots = slotsOrGone(pid, lockspace);
  return slots !== "gone" && [...slots.values()].filter((each) => each !== "").length < keys;
}

function openLockFile(path: string): Deno.FsFile | undefined {
  try {
    return Deno.openSync(path, { read: true, write: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Of a process that is on its way out, in the flags of its stat; linux/sched.h. */
const PF_EXITING = 0x4;

/** The slots of a process; a zombie has none, and neither has one that is gone or on its way out. */
function slotsOrGone(pid: number, lockspace: string): Map<string, string> | "gone" {
  try {
    const slots = slotsOf(pid, lockspace);
    const [state, , , , , , flags] = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ").at(-1)!.split(
      " ",
    );
    return /[ZX]/.test(state!) || (Number(flags) & PF_EXITING) !== 0 ? "gone" : slots;
  } catch {
    return "gone";
  }
}
