import type { Holder, Refusal } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";

/** A refusal as the error that names the resource and everybody who stands in the way. Exit status 75. */
export function lockedError(refusal: Refusal): LockvisorError {
  const { resource, holders } = refusal;
  return new LockvisorError(
    "locked",
    `${resource.type} ${resource.name} is locked by ${holdersText(holders)}`,
    {
      details: { resource, holder: holders[0] ?? null, holders },
    },
  );
}

/** All holders in words. */
export function holdersText(holders: readonly Holder[]): string {
  if (holders.length === 0) {
    return "somebody who cannot be seen from here (another host, or another pid namespace of this host)";
  }
  return holders.map(holderText).join(" and by ");
}

/** One holder in words: `guest "vm1" (pid 4711 on hv1, exclusive, since 2026-11-22T20:14:03Z)`. */
export function holderText(holder: Holder): string {
  const where = holder.host === null ? "" : ` on ${holder.host}`;
  if (holder.name === null) {
    const what = holder.pid === null ? "a process" : `process ${holder.pid}`;
    return `${what}${where}, which has left no note of a guest`;
  }
  const facts = [
    holder.pid === null ? undefined : `pid ${holder.pid}${where}`,
    holder.access ?? undefined,
    holder.since === null ? undefined : `since ${holder.since}`,
  ];
  return `guest "${holder.name}" (${facts.filter((fact) => fact !== undefined).join(", ")})`;
}
