import type { Access } from "../access.ts";
import type { Holder, ResourceType } from "../driver/contract.ts";

/** What the agent tells of. */
export type EventType =
  | "agent-started"
  | "agent-stopping"
  | "guest-found"
  | "guest-started"
  | "guest-ended"
  | "guest-paused"
  | "guest-resumed"
  | "guest-migrating"
  | "guest-migrated"
  | "migration-cancelled"
  | "guest-mended"
  | "lock-granted"
  | "lock-released"
  | "lock-changed"
  | "lock-refused"
  | "lock-conflict"
  | "lock-lost"
  | "lock-regained"
  | "lock-broken"
  | "action-taken"
  | "hook-failed"
  | "problem"
  | "events-missed";

/** All types, for the description of the interface. */
export const EVENT_TYPES: readonly EventType[] = [
  "agent-started",
  "agent-stopping",
  "guest-found",
  "guest-started",
  "guest-ended",
  "guest-paused",
  "guest-resumed",
  "guest-migrating",
  "guest-migrated",
  "migration-cancelled",
  "guest-mended",
  "lock-granted",
  "lock-released",
  "lock-changed",
  "lock-refused",
  "lock-conflict",
  "lock-lost",
  "lock-regained",
  "lock-broken",
  "action-taken",
  "hook-failed",
  "problem",
  "events-missed",
];

/** A guest as an event names it; `uuid` and `pid` are null where they are not known. */
export interface EventGuest {
  uuid: string | null;
  name: string;
  pid: number | null;
}

/** A disk or lease as an event names it. */
export interface EventResource {
  type: ResourceType;
  name: string;
  access: Access | null;
}

/** What has happened, before it has a number. */
export interface Happening {
  type: EventType;
  guest?: EventGuest | undefined;
  resources?: readonly EventResource[];
  /** Who stands in the way, or had the lock in between. */
  holder?: Holder | null;
  /** One line for people. */
  message: string;
}

/** Something that has happened, as hooks, the log and the event stream tell it. */
export interface AgentEvent {
  /** `EPOCH-NUMBER`: the epoch is the agent's own life, the number counts up in it. */
  id: string;
  /** When, in UTC; ISO 8601. */
  time: string;
  type: EventType;
  guest: EventGuest | null;
  resources: readonly EventResource[];
  holder: Holder | null;
  message: string;
}
