import type { DriverConfig } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { ResolvedResource } from "../identity/resource.ts";
import { appendAudit, type AuditEntry } from "../lockspace/audit_log.ts";
import { breakKey, keyFacts, keysNotedFor } from "../lockspace/break_key.ts";
import { type BreakVerdict, judgeBreak, type NotedHolder } from "../lockspace/break_plan.ts";
import { holdingsIn } from "../lockspace/holdings.ts";
import { type Lockspace, openLockspace } from "../lockspace/lockspace.ts";
import { commandName } from "../process/process_identity.ts";
import { ambiguousName } from "./find_guest.ts";

/** What is to be broken: a disk or a lease by its identities, or all that a guest has left notes about. */
export type BreakTarget =
  | { kind: "resource"; name: string; resource: ResolvedResource }
  | { kind: "guest"; name: string };

/** Why, and what the operator vouches for. */
export interface BreakOrder {
  reason: string;
  /** Hosts, by name or id, that are switched off or cut from the storage. */
  fenced: string[];
  /** Who is behind the user, as sudo(8) tells. */
  sudoUser: string | null;
}

/** What a break has done. */
export interface BreakReport {
  broken: string[];
  free: string[];
  warnings: string[];
}

type Breakable = { key: string; holders: NotedHolder[] };

/**
 * Frees the locks of hosts that are known to be dead; never one that a process of this host has. All keys are judged
 * before anything is written, and the audit log is on the disk before the first lock file is replaced.
 * @throws {LockvisorError} `locked` when a key is held here, or on a host that was not named as fenced; `data`
 */
export async function breakLocks(
  config: DriverConfig,
  target: BreakTarget,
  order: BreakOrder,
): Promise<BreakReport> {
  const lockspace = openLockspace(config.lockspace, config.effectiveUid, config.storage);
  const keys = keysOfTarget(lockspace, target);
  const breakable = judge(lockspace, keys, { target, order, hostId: config.host.id });
  const warnings: string[] = [];
  if (breakable.length > 0) {
    const entry = auditEntry(config, { target: target.name, breakable, order });
    appendAudit(lockspace, entry); // before the locks: what is done is never unwritten
    failpoint("break.audited");
    // Judged again: writing took a while, and a lock that is held by somebody else by now must not be broken.
    const still = judge(lockspace, keys, { target, order, hostId: config.host.id });
    for (const { key, holders } of still) breakKey(lockspace, key, holders);
    warnings.push(...await tellJournal(entry));
  }
  const broken = breakable.map(({ key }) => key);
  return { broken, free: keys.filter((key) => !broken.includes(key)), warnings };
}

function keysOfTarget(lockspace: Lockspace, target: BreakTarget): string[] {
  if (target.kind === "resource") {
    return target.resource.identities.filter(({ scope }) => scope === "whole").map(({ key }) => key);
  }
  const keys = keysNotedFor(lockspace, target.name);
  if (keys.length > 0) return keys;
  throw new LockvisorError(
    "data",
    `"${target.name}" is no guest that has left a note in lockspace ${lockspace.path}; a disk is given by a path with a "/", a lease as LOCKSPACE:KEY`,
  );
}

function judge(
  lockspace: Lockspace,
  keys: readonly string[],
  { target, order: { fenced }, hostId }: { target: BreakTarget; order: BreakOrder; hostId: string },
): Breakable[] {
  const holdings = holdingsIn(lockspace);
  const facts = keys.map((key) => ({ key, facts: keyFacts(lockspace, key, { hostId, holdings }) }));
  if (target.kind === "guest") {
    refuseAmbiguousName(target.name, facts.flatMap((each) => each.facts.holders));
  }
  return facts.flatMap(({ key, facts }): Breakable[] => {
    const verdict = judgeBreak(facts, { hostId, fenced });
    refuse(target.name, verdict);
    return verdict.kind === "breakable" ? [{ key, holders: verdict.holders }] : [];
  });
}

/** A name that two hosts gave to two guests means neither of them; which one is dead, only the operator knows. */
function refuseAmbiguousName(name: string, holders: readonly NotedHolder[]): void {
  const named = holders.filter(({ guest, life }) => guest.name === name && life !== "dead");
  const uuids = new Set(named.map(({ guest }) => guest.uuid));
  if (uuids.size > 1) throw ambiguousName(name, [...uuids].sort());
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
  { host, effectiveUid }: DriverConfig,
  { target, breakable, order }: { target: string; breakable: readonly Breakable[]; order: BreakOrder },
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
    host,
    uid: effectiveUid,
    sudoUser: order.sudoUser,
    target,
    keys: breakable.map(({ key }) => key),
    holders: [...holders.values()],
    fenced: order.fenced,
    reason: order.reason,
  };
}

/**
 * One line for the journal, by logger(1), which every Debian has. The audit log counts; this is for the watchful.
 * @returns a warning when the journal could not be told
 */
async function tellJournal(entry: AuditEntry): Promise<string[]> {
  try {
    const args = ["-t", "lockvisor", "-p", "auth.notice", "--", JSON.stringify(entry)];
    const { success } = await new Deno.Command("logger", { args, stdout: "null", stderr: "null" }).output();
    if (success) return [];
  } catch { /* said below */ }
  return ["the journal could not be told (logger failed); the lockspace's audit.log has the entry"];
}
