/** The guests of a sequence. */
export const GUESTS = ["A", "B", "C"] as const;
export type GuestName = (typeof GUESTS)[number];

/** The accesses, as this test knows them: nothing here is taken from the program's own table. */
export type Access = "exclusive" | "shared" | "readonly";

/** One disk under three names, two disks with one name each, and a lease. */
export const RESOURCES = ["disk0", "disk0-hard", "disk0-symbolic", "disk1", "disk2", "cluster:db"] as const;
export type ResourceName = (typeof RESOURCES)[number];

/** A resource as a guest asks for it. */
export interface Wish {
  resource: ResourceName;
  access: Access;
}

/** What is done to the guests, one after the other. Each is defined in every state; many are refused. */
export type Operation =
  /** A new process becomes the guest: by `run`, or by `adopt` when it runs already. */
  | { kind: "start"; guest: GuestName; by: "run" | "adopt"; wishes: Wish[] }
  /** `adopt` once more, of the process that is this guest or another one. */
  | { kind: "adopt-again"; guest: GuestName; process: GuestName; wishes: Wish[] }
  | { kind: "acquire"; guest: GuestName; wishes: Wish[] }
  | { kind: "release"; guest: GuestName; resources: ResourceName[] }
  | { kind: "pause"; guest: GuestName; locks: "kept" | "released" }
  | { kind: "resume"; guest: GuestName; changes: "refuse" | "accept" }
  | { kind: "stop"; guest: GuestName }
  | { kind: "wait"; guest: GuestName }
  /** SIGKILL for the guest's process. */
  | { kind: "kill"; guest: GuestName }
  /** SIGKILL for one of the processes beside it that hold its locks. */
  | { kind: "kill-holder"; guest: GuestName; which: number }
  | { kind: "attach" }
  /** The runtime directory is removed, then `attach`. */
  | { kind: "wipe-and-attach" }
  | { kind: "gc" }
  | { kind: "check"; wishes: Wish[] }
  | { kind: "inspect"; resource: ResourceName }
  | { kind: "break"; resource: ResourceName };

/** An operation in a few words, as one would type it. */
export function inWords(operation: Operation): string {
  const asked = (wishes: readonly Wish[]) => wishes.map(({ resource, access }) => `${resource}=${access}`);
  switch (operation.kind) {
    case "start":
      return [operation.by, operation.guest, ...asked(operation.wishes)].join(" ");
    case "adopt-again":
      return ["adopt", `process-of-${operation.process}`, operation.guest, ...asked(operation.wishes)].join(
        " ",
      );
    case "acquire":
      return ["acquire", operation.guest, ...asked(operation.wishes)].join(" ");
    case "release":
      return ["release", operation.guest, ...operation.resources].join(" ");
    case "pause":
      return `pause ${operation.guest}, locks ${operation.locks}`;
    case "resume":
      return `resume ${operation.guest}, changes: ${operation.changes}`;
    case "kill-holder":
      return `kill a holder of ${operation.guest} (${operation.which})`;
    case "stop":
    case "wait":
    case "kill":
      return `${operation.kind} ${operation.guest}`;
    case "check":
      return ["check", ...asked(operation.wishes)].join(" ");
    case "inspect":
    case "break":
      return `${operation.kind} ${operation.resource}`;
    case "attach":
    case "wipe-and-attach":
    case "gc":
      return operation.kind;
  }
}
