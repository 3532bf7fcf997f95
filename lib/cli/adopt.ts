import { processAdopt } from "../domain_lock.ts";
import { LockvisorError } from "../errors.ts";
import { checkParameter } from "../manager/parameters.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { hotplugResult } from "../report/results.ts";
import type { CliContext } from "./context.ts";
import { readGuest } from "./guest_options.ts";
import { reportText } from "./hotplug.ts";
import type { Invocation } from "./parse.ts";
import { openSession } from "./session.ts";

/** `lockvisor adopt`: locks for a process that runs already. */
export async function adopt({ options }: Invocation, context: CliContext): Promise<number> {
  const pid = readPid(options.text("pid"));
  const guest = readGuest("adopt", options);
  const session = await openSession(options, context);
  const lock = await session.domainLock({ plugin: options.text("plugin") ?? DEFAULT_DRIVER });
  const { report, record } = await processAdopt(lock, { ...guest, pid });
  for (const warning of report.warnings) context.note(`warning: ${warning}`);
  const { uuid, name, carriers: [own] } = record;
  context.out(
    options.isGiven("json")
      ? JSON.stringify({ guest: { uuid, name, pid: own.pid }, ...hotplugResult(report) }) + "\n"
      : `process ${own.pid} is guest "${name}" (uuid ${uuid})\n` + reportText(report, name),
  );
  return 0;
}

function readPid(text: string | undefined): number {
  if (text === undefined) throw new LockvisorError("usage", "adopt: say which process; add --pid PID");
  if (/^[1-9][0-9]{0,6}$/.test(text)) return checkParameter("pid", Number(text));
  throw new LockvisorError("usage", `adopt: --pid "${text}" is not the number of a process`);
}
