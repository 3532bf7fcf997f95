import { LockvisorError, printable } from "../errors.ts";
import { waitForGuestEnd } from "../host_lock.ts";
import type { CliContext } from "./context.ts";
import { parseDuration } from "../config/duration.ts";
import type { Invocation } from "./parse.ts";
import { findKnownGuest } from "../past_guest.ts";
import { openSession } from "./session.ts";

/**
 * `lockvisor wait`: returns when a guest has ended. What ended is proved by its lease on itself too: a guest that
 * forked lives on in its child.
 */
export async function waitForGuest(
  { options, arguments: [guest] }: Invocation,
  context: CliContext,
): Promise<number> {
  const timeoutMs = parseDuration("--timeout", options.text("timeout") ?? "");
  const session = await openSession(options, context);
  const known = await findKnownGuest(session, guest!);
  if (known.kind === "past") return report({ uuid: known.uuid, name: null, pid: null });
  const { uuid, name, carriers: [process] } = known.record;
  const { outcome } = await waitForGuestEnd(session, known.record, { timeoutMs });
  if (outcome === "unseen") {
    throw new LockvisorError(
      "unavailable",
      `guest "${name}" (pid ${process.pid}) runs in another pid namespace, or is hidden by how /proc is mounted (hidepid); wait for it where it is seen`,
    );
  }
  if (outcome !== "ended") {
    throw new LockvisorError(
      "locked",
      `guest "${name}" (pid ${process.pid}) still runs and has its locks; wait longer, or: lockvisor stop ${name}`,
      { details: { guest: { uuid, name, pid: process.pid } } },
    );
  }
  return report({ uuid, name, pid: process.pid });

  function report(facts: { uuid: string; name: string | null; pid: number | null }): number {
    context.out(
      options.isGiven("json")
        ? JSON.stringify({ guest: facts, outcome: "ended" }) + "\n"
        : printable(`guest "${facts.name ?? guest}" has ended`) + "\n",
    );
    return 0;
  }
}
