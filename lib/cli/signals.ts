import { END_SIGNALS, type EndSignal } from "./interrupted.ts";

/** Listens for what asks for an end. What our parent had us ignore (nohup, a shell's background job) stays ignored. */
export function listenForEnd<Signal extends EndSignal>(
  signals: readonly Signal[],
  received: (signal: Signal) => void,
): { end(): void } {
  const listeners = signals
    .filter((signal) => !isIgnored(signal))
    .map((signal) => {
      const listener = () => received(signal);
      Deno.addSignalListener(signal, listener);
      return () => Deno.removeSignalListener(signal, listener);
    });
  return { end: () => listeners.forEach((remove) => remove()) };
}

/** An abort signal that fires when somebody asks for an end. @param reason gives what is thrown for it then */
export function abortOnSignals(
  reason: (signal: EndSignal) => unknown,
): { signal: AbortSignal; end(): void } {
  const controller = new AbortController();
  const signals = ["SIGHUP", "SIGINT", "SIGTERM"] as const;
  const listening = listenForEnd(signals, (signal) => controller.abort(reason(signal)));
  return { signal: controller.signal, end: () => listening.end() };
}

/** proc_pid_status(5), SigIgn: a mask of signals, the first in the lowest bit. */
function isIgnored(signal: EndSignal): boolean {
  const number = BigInt(END_SIGNALS[signal]);
  const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(Deno.readTextFileSync("/proc/self/status"))?.[1] ?? "0";
  return ((BigInt(`0x${mask}`) >> (number - 1n)) & 1n) === 1n;
}
