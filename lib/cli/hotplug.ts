import { resourcesAttach, resourcesDetach } from "../domain_lock.ts";
import { LockvisorError, printable } from "../errors.ts";
import { parseDisk, parseLease } from "../identity/specification.ts";
import { findLivingGuest } from "../manager/find_guest.ts";
import type { HotplugReport } from "../manager/hotplug_plan.ts";
import { hotplugResult } from "../report/results.ts";
import type { CliContext } from "./context.ts";
import type { Invocation } from "./parse.ts";
import { openSession } from "./session.ts";

/** `lockvisor acquire`: locks for a running guest, before a hotplug. */
export function acquire(invocation: Invocation, context: CliContext): Promise<number> {
  return hotplug("acquire", invocation, context);
}

/** `lockvisor release`: gives locks of a running guest up, after an unplug. */
export function release(invocation: Invocation, context: CliContext): Promise<number> {
  return hotplug("release", invocation, context);
}

async function hotplug(
  command: "acquire" | "release",
  { options, arguments: [guest] }: Invocation,
  context: CliContext,
): Promise<number> {
  const specs = [...options.texts("disk").map(parseDisk), ...options.texts("lease").map(parseLease)];
  if (specs.length === 0) {
    throw new LockvisorError("usage", `${command}: name at least one --disk or --lease`);
  }
  const session = await openSession(options, context);
  const record = findLivingGuest(session.store, guest!);
  const sequence = command === "acquire" ? resourcesAttach : resourcesDetach;
  const report = await sequence(await session.domainLock(record), record, specs);
  for (const warning of report.warnings) context.note(`warning: ${warning}`);
  context.out(
    options.isGiven("json") ? JSON.stringify(hotplugResult(report)) + "\n" : reportText(report, record.name),
  );
  return 0;
}

const VERBS = {
  lock: "locked",
  held: "was locked already",
  changed: "is locked with this access now",
  unprotected: "is not locked",
  unlock: "released",
  "not-held": "was not locked",
} as const;

export function reportText({ done }: HotplugReport, guest: string): string {
  return done.map(({ kind, resource }) =>
    printable(`${resource.type} ${resource.name} (${resource.access}): ${VERBS[kind]} for guest "${guest}"`) +
    "\n"
  ).join("");
}
