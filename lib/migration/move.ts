import type { HostUri } from "../config/host_uri.ts";
import type { ReceiveOrder } from "./conversation.ts";
import type { OwnProgram } from "./destination_program.ts";
import type { SendLimits, SentGuest } from "./outgoing_qemu.ts";
import type { Progress } from "./progress.ts";

/** The locks of the guest that leaves, on the host that it leaves. */
export interface DepartureLocks {
  /** Gives up half of each lock. Gives the text of the ticket. @throws {LockvisorError} nothing has changed then */
  prepare(): Promise<string>;
  /** Notes that the guest is let go: from then on it never goes on here. */
  letGo(): Promise<void>;
  /** Notes that it is certain that the guest did not run there. */
  holdAgain(): Promise<void>;
  /** The guest has left: ends its QEMU here. @throws {LockvisorError} */
  complete(): Promise<void>;
  /** The guest stays, and runs on if it ran. @throws {LockvisorError} `locked` while somebody lives at the destination */
  cancel(): Promise<void>;
}

/** The guest that moves, and how it is to be there. */
export interface MovingGuest {
  uuid: string;
  name: string;
  plugin: string;
  pid: number;
  /** Its QMP socket here. */
  qmp: string;
  there: Pick<ReceiveOrder, "command" | "directory" | "qmp" | "map">;
}

/** A whole migration. */
export interface Move {
  guest: MovingGuest;
  destination: { text: string; uri: HostUri };
  own: OwnProgram;
  locks: DepartureLocks;
  limits: SendLimits;
  /** How long the memory may take, in milliseconds; Infinity for ever. */
  timeoutMs: number;
  /** Ends it, with an error as its reason, as long as it can go back. */
  signal: AbortSignal;
  watch(event: MoveEvent): void;
}

/** What is told of a migration while it goes on. */
export type MoveEvent =
  | { kind: "stage"; stage: Stage }
  | { kind: "progress"; progress: Progress }
  | { kind: "warning"; message: string };

/** How far it has come. */
export type Stage =
  | "greeted"
  | "prepared"
  | "ready"
  | "migrating"
  | "sent"
  | "running"
  | "completed"
  | "cancelling"
  | "cancelled";

/** A guest that has moved. */
export interface MovedGuest {
  pid: number;
  /** Whether it has all of its locks there; if not, in words, who has the others. */
  locks: { outcome: "complete" | "waiting"; holders: string };
  sent: SentGuest;
  /** From the word that all of it has come there to the word that it runs there, in milliseconds: what is ours. */
  handOverMs: number;
  /** From the stop of its processors here to the word that it runs there, in milliseconds; undefined if they stood still. */
  stoodStillMs: number | undefined;
}
