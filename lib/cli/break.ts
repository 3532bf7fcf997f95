import { LockvisorError, printable } from "../errors.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import { breakOnHost, resolveOnHost } from "../host_lock.ts";
import { parseResource } from "../identity/specification.ts";
import type { BreakTarget } from "../manager/break_locks.ts";
import type { CliContext } from "./context.ts";
import type { Invocation } from "./parse.ts";
import { openSession, type Session } from "./session.ts";

/** `lockvisor break`: frees locks of a host that is known to be dead. */
export async function run(
  { options, arguments: [target] }: Invocation,
  context: CliContext,
): Promise<number> {
  const reason = options.text("reason")?.trim();
  if (reason === undefined || reason === "") {
    throw new LockvisorError("usage", "break: say why; add --reason TEXT");
  }
  const session = await openSession(options, context);
  const { broken, free, warnings } = await breakOnHost(session, readTarget(session, target!), {
    reason,
    fenced: options.texts("host-is-fenced"),
    sudoUser: context.environment("SUDO_USER") ?? null,
  });
  for (const warning of warnings) context.note(`warning: ${warning}`);
  context.out(
    options.isGiven("json") ? JSON.stringify({ target, broken, free }) + "\n" : printable(
      broken.length === 0
        ? `nobody holds ${target}; there is nothing to break`
        : `broke ${broken.length} ${broken.length === 1 ? "key" : "keys"} of ${target}`,
    ) + "\n",
  );
  return 0;
}

/** A disk or a lease by its identities; else a guest of whatever host, by the notes that it has left. */
function readTarget(session: Session, name: string): BreakTarget {
  if (!/[/:]/.test(name)) return { kind: "guest", name };
  const spec = parseResource(name, (path) => lstatIfPresent(path) !== undefined);
  return { kind: "resource", name, resource: resolveOnHost(session, spec) };
}
