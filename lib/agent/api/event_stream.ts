import type { HttpRequest, HttpResponse } from "../../http/message.ts";
import type { AgentEvent } from "../event.ts";
import type { Beginning, EventLog } from "../event_log.ts";

/** A silent stream is told that it lives as often, in milliseconds: a proxy or a client would give it up. */
const SILENCE_MS = 15_000;

/** Where a client begins: behind the last event that it has seen, or where it wants. */
export function beginningOf(
  headers: HttpRequest["headers"],
  { last, after }: { last?: string | undefined; after?: string | undefined },
): Beginning {
  const seen = headers.get("last-event-id") ?? after;
  if (seen !== undefined && seen !== "") return { kind: "after", id: seen };
  return last === undefined ? { kind: "now" } : { kind: "last", count: Number(last) };
}

/** Events as server-sent events, as the HTML standard has them (9.2). */
export function eventStream(
  events: EventLog,
  beginning: Beginning,
  signal: AbortSignal,
  silenceMs: number = SILENCE_MS,
): HttpResponse {
  return {
    status: 200,
    headers: { "content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no" },
    // Begun here: whoever sees the head of the answer misses nothing from then on.
    stream: lines(events.follow(beginning, signal), silenceMs),
  };
}

async function* lines(following: AsyncGenerator<AgentEvent>, silenceMs: number): AsyncGenerator<string> {
  try {
    yield ": the events of lockvisor\nretry: 1000\n\n";
    let next = following.next();
    while (true) {
      const result = await within(next, silenceMs);
      if (result === "silence") {
        yield ": still here\n\n";
        continue;
      }
      if (result.done) return;
      yield formatEvent(result.value);
      next = following.next();
    }
  } finally {
    void following.return(undefined);
  }
}

async function within<Value>(promise: Promise<Value>, silenceMs: number): Promise<Value | "silence"> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const silence = new Promise<"silence">((resolve) =>
    timer = setTimeout(() => resolve("silence"), silenceMs)
  );
  try {
    return await Promise.race([promise, silence]);
  } finally {
    clearTimeout(timer);
  }
}

/** JSON has no line breaks of its own, so an event's data is one line. */
function formatEvent(event: AgentEvent): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}
