import { LockvisorError, printable } from "../errors.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import { parseResource } from "../identity/specification.ts";
import { appendAudit, type AuditEntry } from "../lockspace/audit_log.ts";
import { breakKey, keyFacts, keysNotedFor } from "../lockspace/break_key.ts";
import { type BreakVerdict, judgeBreak, type NotedHolder } from "../lockspace/break_plan.ts";
import { holdingsIn } from "../lockspace/holdings.ts";
import { type Lockspace, openLockspace } from "../lockspace/lockspace.ts";
import { commandName } from "../process/process_identity.ts";
import type { CliContext } from "./context.ts";
import type { Invocation } from "./parse.ts";
import { openSession, type Session } from "./session.ts";

type Breakable = { key: string; holders: NotedHolder[] };

/** `lockvisor break`: frees locks of a host that is known to be dead. */
export async function run(
  { options, arguments: [target] }: Invocation,
  context: CliContext,
): Promise<number> {
  const reason = options.text("reason")?.trim();
  if (reason === undefined || reason === "") {
    throw new LockvisorError("usage", "break: say why; add --reason TEXT");
  }
  const fenced = options.isGiven("host-is-fenced") ? options.texts("host-is-fenced") : [];
  const session = await openSession(options, context);
  const { settings } = session;
  const lockspace = openLockspace(settings.lockspace, context.effectiveUid, settings.storage);
  const keys = keysOfTarget(session, lockspace, target!);
  const judge = () => {
    const holdings = holdingsIn(lockspace);
    return keys.flatMap((key): Breakable[] => {
      const facts = keyFacts(lockspace, key, { hostId: settings.hostId, holdings });
      const verdict = judgeBreak(facts, { hostId: settings.hostId, fenced });
      refuse(target!, verdict);
      return verdict.kind === "breakable" ? [{ key, holders: verdict.holders }] : [];
    });
  };
  const breakable = judge();
  if (breakable.length > 0) {
    const entry = auditEntry(context, {
      target: target!,
      breakable,
      fenced,
      reason,
      hostId: settings.hostId,
    });
    appendAudit(lockspace, entry); // before the locks: what is done is never unwritten
    // Judged again: writing took a while, and a lock that is held by somebody else by now must not be broken.
    for (const { key, holders } of judge()) breakKey(lockspace, key, holders);
    await tellJournal(entry, context);
  }
  const broken = breakable.map(({ key }) => key);
  context.out(
    options.isGiven("json")
      ? JSON.stringify({ target, broken, free: keys.filter((key) => !broken.includes(key)) }) + "\n"
      : printable(
        broken.length === 0
          ? `nobody holds ${target}; there is nothing to break`
          : `broke ${broken.length} ${broken.length === 1 ? "key" : "keys"} of ${target}`,
      ) + "\n",
  );
  return 0;
}

/** A disk or a lease by its identities; else a guest of whatever host, by the notes that it has left. */
function keysOfTarget(session: Session, lockspace: Lockspace, target: string): string[] {
  if (/[/:]/.test(target)) {
    const resource = session.resolve(parseResource(target, (path) => lstatIfPresent(path) !== undefined));
    return resource.identities.filter(({ scope }) => scope === "whole").map(({ key }) => key);
  }
  const keys = keysNotedFor(lockspace, target);
  if (keys.length > 0) return keys;
  throw new LockvisorError(
    "data",
    `"${target}" is no guest that has left a note in lockspace ${lockspace.path}; a disk is given by a path with a "/", a lease as LOCKSPACE:KEY`,
  );
}

function refuse(target: string, verdict: BreakVerdict): void {
  switch (verdict.kind) {
    case "free":
    case "breakable":
      return;
    case "held-here": {
      const guests = verdict.holders.map(holderWords);
      const processes = verdict.pids.map((pid) =>
        `process ${pid} (${commandName(pid) ?? "ended; a child has it"})`
      );
      const who = guests.length > 0 ? guests : processes;
      throw new LockvisorError(
        "locked",
        `${target} is held on this host by ${
          who.join(" and ")
        }; that is never broken: stop it, and the lock is free`,
        { details: { holders: verdict.holders, pids: verdict.pids } },
      );
    }
    case "host-not-fenced": {
      const hosts = [...new Set(verdict.holders.map(({ host }) => host.name))];
      throw new LockvisorError(
        "locked",
        `${target} is held by ${
          verdict.holders.map(holderWords).join(" and ")
        }; if that host is switched off or cut from the storage for certain, add ${
          hosts.map((host) => `--host-is-fenced ${host}`).join(" ")
        }`,
        { details: { holders: verdict.holders } },
      );
    }
    case "unreadable":
      throw new LockvisorError(
        "data",
        `${target} is held from elsewhere, and who holds it cannot be read from ${
          verdict.files.join(", ")
        }; find out whose note that is, remove it, try again`,
      );
    case "nameless":
      throw new LockvisorError(
        "locked",
        `${target} is held from another host or pid namespace by somebody who left no note; nobody can say which host to fence`,
      );
  }
}

function holderWords({ guest, host, pid, since }: NotedHolder): string {
  return `guest "${guest.name}" (pid ${pid} on ${host.name}, since ${since})`;
}

function auditEntry(
  context: CliContext,
  { target, breakable, fenced, reason, hostId }: {
    target: string;
    breakable: readonly Breakable[];
    fenced: string[];
    reason: string;
    hostId: string;
  },
): AuditEntry {
  const holders = new Map(
    breakable.flatMap((each) => each.holders).map(({ guest, host, pid, since }) => [
      `${guest.uuid} ${host.id}`,
      { guest: guest.name, host: host.name, pid, since },
    ]),
  );
  return {
    time: new Date().toISOString(),
    action: "break",
    host: { id: hostId, name: context.hostName },
    uid: context.effectiveUid,
    sudoUser: context.environment("SUDO_USER") ?? null,
    target,
    keys: breakable.map(({ key }) => key),
    holders: [...holders.values()],
    fenced,
    reason,
  };
}

/** One line for the journal, by logger(1), which every Debian has. The audit log counts; this is for the watchful. */
async function tellJournal(entry: AuditEntry, context: CliContext): Promise<void> {
  try {
    const args = ["-t", "lockvisor", "-p", "auth.notice", "--", JSON.stringify(entry)];
    const { success } = await new Deno.Command("logger", { args, stdout: "null", stderr: "null" }).output();
    if (success) return;
  } catch { /* said below */ }
  context.note(
    "warning: the journal could not be told (logger failed); the lockspace's audit.log has the entry",
  );
}
