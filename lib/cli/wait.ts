import { type EndSignal, Interrupted } from "./interrupted.ts";
import { LockvisorError } from "../errors.ts";
import type { Enforcement } from "../manager/start_guest.ts";
import { listenForEnd } from "./signals.ts";

/** Pauses between two tries, in milliseconds: short at first, then easy on a holder that stays for hours. */
const FIRST_PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 200;

/**
 * Acquires, trying again while the guest is refused, until the given time in milliseconds has passed. Ends early
 * on SIGINT and SIGTERM, with nothing locked. What `enforce` waives it waives at the last try.
 * @throws {LockvisorError} `locked` by whoever held it at the last try
 */
export async function acquireWithin(
  attempt: (enforce: Enforcement) => Promise<void>,
  durationMs: number,
  enforce: Enforcement,
): Promise<void> {
  const interruption = watchForSignals();
  const deadline = performance.now() + durationMs;
  try {
    for (let pauseMs = FIRST_PAUSE_MS;; pauseMs = Math.min(pauseMs * 1.5, LONGEST_PAUSE_MS)) {
      try {
        return await attempt("refuse");
      } catch (error) {
        if (!(error instanceof LockvisorError) || error.code !== "locked") throw error;
        const left = deadline - performance.now();
        if (left <= 0 && enforce === "warn") return await attempt(enforce);
        if (left <= 0) throw error;
        await interruption.sleep(Math.min(left, pauseMs * (0.75 + Math.random() / 2)));
      }
    }
  } finally {
    interruption.end();
  }
}

function watchForSignals() {
  let received: EndSignal | undefined;
  let wake = () => {};
  const listening = listenForEnd(["SIGINT", "SIGTERM"], (signal) => {
    received ??= signal;
    wake();
  });
  return {
    async sleep(ms: number): Promise<void> {
      if (received === undefined) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, ms);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
      if (received !== undefined) throw new Interrupted(received);
    },
    end: () => listening.end(),
  };
}
