import { type ErrorCode, isErrorCode, LockvisorError } from "../errors.ts";
import { isCount, isText, JsonFields, WrongShape } from "../files/json_shape.ts";
import type { PathMapping } from "./path_map.ts";

/*
 * What the two ends of a migration say to each other, a line of JSON each: the driver, on the host that the guest leaves,
 * gives orders; the receiver, on the host that it comes to, reports.
 */

/** Raised when one end would not understand the other any more. */
export const PROTOCOL = 1;

/** Starts the guest's QEMU, which then waits for the guest. */
export interface ReceiveOrder {
  order: "receive";
  /** The text of the ticket. */
  ticket: string;
  guest: { uuid: string; name: string };
  plugin: string;
  command: string[];
  /** Where the command runs if there is such a directory. */
  directory: string;
  /** The path of the QMP socket there. */
  qmp: string;
  /** A new directory for the socket through which the guest's memory comes. */
  socketDirectory: string;
  map: PathMapping[];
}

/** What the driver says. */
export type Order =
  | ReceiveOrder
  /** Everything was sent. */
  | { order: "sent"; processors: Processors }
  /** The guest is let go: from now on it may run there, and never again here. */
  | { order: "go" }
  /** The source has ended: its slots are free. */
  | { order: "complete" }
  /** The guest stays where it was. */
  | { order: "cancel" }
  /** The driver is still there. */
  | { order: "alive" };

/** What the guest's processors do after it has come: what they did before. */
export type Processors = "run" | "stay-stopped";

/** What the receiver says. */
export type Report =
  | { report: "hello"; protocol: number; version: string; hostName: string }
  /** QEMU listens for the guest. */
  | { report: "ready"; pid: number }
  /** Everything has come; the guest is stopped. */
  | { report: "arrived" }
  /** The answer to `go`. */
  | { report: "running" }
  /** The answer to `complete`. `waiting`: somebody still has the other slots. */
  | { report: "completed"; outcome: "complete" | "waiting"; holders: string }
  /** The answer to `cancel`: nothing of the guest is left there. */
  | { report: "cancelled" }
  /** It went wrong. `never-ran`: nothing of the guest is left there, and it did not run for an instant. */
  | { report: "failed"; guest: "never-ran" | "may-run"; code: ErrorCode; message: string }
  | { report: "warning"; message: string };

/** The name of the socket in its directory. */
export const STREAM_SOCKET = "stream";

/** Reads what the driver has said. @throws {WrongShape} */
export function parseOrder(line: string): Order {
  const fields = new JsonFields(parseJson(line));
  const order = fields.text("order");
  switch (order) {
    case "receive": {
      const guest = fields.object("guest");
      return {
        order,
        ticket: fields.text("ticket"),
        guest: { uuid: guest.text("uuid"), name: guest.text("name") },
        plugin: fields.text("plugin"),
        command: fields.list("command", readText),
        directory: fields.text("directory"),
        qmp: fields.text("qmp"),
        socketDirectory: fields.text("socketDirectory"),
        map: fields.list("map", readMapping),
      };
    }
    case "sent":
      return { order, processors: fields.get("processors", isProcessors, "run or stay-stopped") };
    case "go":
    case "complete":
    case "cancel":
    case "alive":
      return { order };
    default:
      throw new WrongShape(`there is no order "${order}"`);
  }
}

/** Reads what the receiver has said. @throws {WrongShape} */
export function parseReport(line: string): Report {
  const fields = new JsonFields(parseJson(line));
  const report = fields.text("report");
  switch (report) {
    case "hello":
      return {
        report,
        protocol: fields.count("protocol"),
        version: fields.text("version"),
        hostName: fields.text("hostName"),
      };
    case "ready":
      return { report, pid: fields.get("pid", isCount, "a process id") };
    case "arrived":
    case "running":
    case "cancelled":
      return { report };
    case "completed":
      return {
        report,
        outcome: fields.get("outcome", isOutcome, "complete or waiting"),
        holders: fields.text("holders"),
      };
    case "failed":
      return {
        report,
        guest: fields.get("guest", isGuestFate, "never-ran or may-run"),
        code: fields.get("code", isErrorCode, "an error's code"),
        message: fields.text("message"),
      };
    case "warning":
      return { report, message: fields.text("message") };
    default:
      throw new WrongShape(`there is no report "${report}"`);
  }
}

/** A fault as a report. */
export function failure(guest: "never-ran" | "may-run", error: unknown): Report {
  const code = error instanceof LockvisorError ? error.code : "internal";
  return { report: "failed", guest, code, message: error instanceof Error ? error.message : String(error) };
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw new WrongShape("it is no JSON");
  }
}

function readText(value: unknown): string {
  if (!isText(value)) throw new WrongShape("a text is missing");
  return value;
}

function readMapping(value: unknown): PathMapping {
  const fields = new JsonFields(value, "a mapping");
  return { from: fields.text("from"), to: fields.text("to") };
}

function isProcessors(value: unknown): value is Processors {
  return value === "run" || value === "stay-stopped";
}

function isOutcome(value: unknown): value is "complete" | "waiting" {
  return value === "complete" || value === "waiting";
}

function isGuestFate(value: unknown): value is "never-ran" | "may-run" {
  return value === "never-ran" || value === "may-run";
}
