import type { RegainOutcome } from "../driver/contract.ts";
import type { GuestRecord, RecordedResource } from "./guest_record.ts";
import { ownLease } from "./lost_locks.ts";
import { holdersText, holderText } from "./refusal.ts";

/** Why lost locks could not be taken again, and by which resource that was seen. */
export interface Obstacle {
  resource: Pick<RecordedResource, "type" | "name" | "access">;
  why:
    | Exclude<RegainOutcome, { outcome: "regained" }>
    /** Taking it was tried, and could not be carried out. */
    | { outcome: "failed"; key: string; reason: string };
}

/** An obstacle, with the resource that its key belongs to. */
export function obstacleOf(record: GuestRecord, why: Obstacle["why"]): Obstacle {
  const resource = [...ownLease(record), ...record.resources].find(({ keys }) => keys.includes(why.key));
  const { type, name, access } = resource ?? { type: "lease", name: why.key, access: "exclusive" };
  return { resource: { type, name, access }, why };
}

/** An obstacle in words. */
export function obstacleText({ resource: { type, name }, why }: Obstacle): string {
  switch (why.outcome) {
    case "refused":
      return `${type} ${name} is locked by ${holdersText(why.holders)}`;
    case "changed":
      return `${type} ${name} was locked by ${
        why.had === null ? "somebody" : holderText(why.had)
      } in between, and may have been written`;
    case "failed":
      return `it could not be taken again: ${why.reason}`;
    case "unknown":
      return `nothing tells how ${type} ${name} was granted, so somebody may have had it in between`;
  }
}
