import { trimHeap } from "../libc/heap.ts";

/** What an agent may have more than when it was last tidied up, in bytes, before it is again. */
const ALLOWANCE = 16 * 2 ** 20;

/**
 * Gives memory back that a flood of requests has left. V8 tidies up when it needs room, not when it has none to do:
 * the program is compiled so that it can be told to (--expose-gc).
 */
export class Memory {
  /** What it had when it was last tidied up, in bytes; 0 before the first time. */
  #level = 0;

  /** To be called now and then, while nothing else is to be done. */
  tidyUp(): void {
    const { rss } = Deno.memoryUsage();
    if (rss <= this.#level + ALLOWANCE) return;
    const { gc } = globalThis as { gc?: () => void };
    gc?.();
    trimHeap();
    this.#level = Deno.memoryUsage().rss;
  }
}
