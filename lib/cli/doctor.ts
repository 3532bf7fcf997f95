import type { Invocation, OptionValues } from "./parse.ts";
import { examine, examineSystem } from "../doctor/examine.ts";
import { failure, type Finding, finding, isHealthy } from "../doctor/finding.ts";
import { LockvisorError, printable } from "../errors.ts";
import type { GuestStore, RecordEntry } from "../manager/guest_store.ts";
import type { CliContext } from "./context.ts";
import { openSession, type Session } from "./session.ts";

/** `lockvisor doctor`: what on this host would let locks fail, and what to do about it. */
export async function run({ options }: Invocation, context: CliContext): Promise<number> {
  const findings = await findingsOf(options, context);
  context.out(
    options.isGiven("json")
      ? JSON.stringify({ healthy: isHealthy(findings), checks: findings }) + "\n"
      : formatFindings(findings),
  );
  return isHealthy(findings) ? 0 : 1;
}

async function findingsOf(options: OptionValues, context: CliContext): Promise<Finding[]> {
  const searchPath = context.environment("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin";
  let session: Session;
  try {
    session = await openSession(options, context);
  } catch (error) {
    if (!(error instanceof LockvisorError) || error.code === "usage") throw error;
    return [finding("configuration", failure(error.message)), ...await examineSystem(searchPath)];
  }
  const { settings, store, plugins } = session;
  const { drivers, missing } = await plugins.inUse(readableRecords(store));
  const lacking = [...missing.values()].map((reason) =>
    finding("plugins", failure(`${reason}; the guests that it locks cannot be looked after`))
  );
  const found = await examine({
    lockspace: settings.lockspace,
    store,
    findDriver: (name) => drivers.get(name),
    effectiveUid: context.effectiveUid,
    storage: settings.storage,
    searchPath,
  });
  return [...found, ...lacking];
}

/** The records, or none where they cannot be read: the examination finds that again, and tells it. */
function readableRecords(store: GuestStore): RecordEntry[] {
  try {
    return store.list();
  } catch (error) {
    if (error instanceof LockvisorError) return [];
    throw error;
  }
}

function formatFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  return findings.map(({ verdict, check, text }) =>
    `${verdict.padEnd("warning".length)}  ${check.padEnd(width)}  ${printable(text)}\n`
  ).join("");
}
