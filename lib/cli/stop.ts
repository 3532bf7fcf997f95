import { printable } from "../errors.ts";
import { stopKnownGuest, type StopManner, type StoppedGuest } from "../guest_stop.ts";
import { parseDuration } from "../config/duration.ts";
import { stopResult } from "../report/results.ts";
import type { CliContext } from "./context.ts";
import type { Invocation, OptionValues } from "./parse.ts";
import { openSession } from "./session.ts";

/** `lockvisor stop`: ends a guest, then proves with the kernel that its locks are free. */
export async function stop(
  { options, arguments: [guest] }: Invocation,
  context: CliContext,
): Promise<number> {
  const manner = readManner(options);
  const session = await openSession(options, context);
  const stopped = await stopKnownGuest(session, guest!, {
    manner,
    warn: (line) => context.note(`warning: ${printable(line)}`),
  });
  context.out(
    options.isGiven("json") ? JSON.stringify(stopResult(stopped)) + "\n" : stoppedText(stopped, guest!),
  );
  return 0;
}

/** Reads the options before anything is done. */
function readManner(options: OptionValues): StopManner {
  return {
    timeoutMs: parseDuration("--timeout", options.text("timeout") ?? "30s"),
    killAfterMs: parseDuration("--kill-after", options.text("kill-after") ?? "10s"),
    manner: options.isGiven("powerdown") ? "power-down" : "quit",
  };
}

function stoppedText({ guest, outcome, tookMs, locks }: StoppedGuest, asked: string): string {
  const who = `guest "${guest.name ?? asked}"`;
  const how = outcome.kind === "before"
    ? "has stopped already"
    : `has stopped (by ${outcome.means}, after ${(tookMs / 1000).toFixed(1)} s)`;
  return printable(`${who} ${how}${locksText(locks)}`) + "\n";
}

function locksText({ total, held }: StoppedGuest["locks"]): string {
  if (total === 0) return "";
  return held === false
    ? `; its ${total} locks are free`
    : `; whether its ${total} locks are free cannot be known from here`;
}
