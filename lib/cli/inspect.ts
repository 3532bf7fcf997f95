import type { Invocation } from "./parse.ts";
import type { CliContext } from "./context.ts";
import type { Inspection, ResolvedResource } from "../driver/contract.ts";
import { printable } from "../errors.ts";
import { inspectResource, resolveOnHost, usersWithoutLock, type UserWithoutLock } from "../host_lock.ts";
import { parseResource } from "../identity/specification.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import { holderText } from "../manager/refusal.ts";
import { inspectionResult } from "../report/results.ts";
import { openSession } from "./session.ts";

/** `lockvisor inspect`: what a disk or lease is called, and who has it. */
export async function run({ options, arguments: [text] }: Invocation, context: CliContext): Promise<number> {
  const session = await openSession(options, context);
  const resource = resolveOnHost(
    session,
    parseResource(text!, (path) => lstatIfPresent(path) !== undefined),
  );
  const inspection = await inspectResource(session, DEFAULT_DRIVER, resource);
  for (const warning of inspection.warnings) context.note(`warning: ${printable(warning)}`);
  const users = usersWithoutLock(session, resource);
  context.out(
    options.isGiven("json")
      ? JSON.stringify(inspectionResult(resource, inspection, users)) + "\n"
      : formatText(resource, inspection, users),
  );
  return 0;
}

function formatText(
  resource: ResolvedResource,
  { locked, generation, holders }: Inspection,
  users: readonly UserWithoutLock[],
): string {
  const lines = [
    `${resource.type} ${resource.name}`,
    ...resource.identities.flatMap(({ text, key }) => [`  identity    ${text}`, `  key         ${key}`]),
    `  locked      ${locked === null ? "not known from here" : locked ? "yes" : "no"}`,
    `  generation  ${generation ?? "none: never held exclusively"}`,
    ...holders.map((holder) => `  holder      ${holderText(holder)}${ALIVE_TEXT[String(holder.alive)]}`),
    ...users.map(({ name, pid, access }) =>
      `  unprotected guest "${name}" (pid ${pid}, ${access}) uses it without the lock that this needs`
    ),
  ];
  return lines.map(printable).join("\n") + "\n";
}

const ALIVE_TEXT: Record<string, string> = {
  true: "",
  false: ", its process is gone and has left the lock to a child",
  null: ", not known from here whether it lives",
};
