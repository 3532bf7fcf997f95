import { printable } from "../errors.ts";

/** Something that happened in QEMU, such as SHUTDOWN. */
export interface QmpEvent {
  name: string;
  data: Record<string, unknown>;
}

/** One line of a QMP server; qemu's docs/interop/qmp-spec. `garbage` says in words what is wrong with it. */
export type QmpMessage =
  | { kind: "greeting" }
  | { kind: "return"; id: unknown; value: unknown }
  | { kind: "error"; id: unknown; errorClass: string; description: string }
  | { kind: "event"; event: QmpEvent }
  | { kind: "garbage"; reason: string };

/** Characters of a line that an error shows. */
const EXCERPT = 60;

/** Reads one line. Never throws: what is no message of the protocol is `garbage`. */
export function parseQmpMessage(line: string): QmpMessage {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { kind: "garbage", reason: `it sent what is no JSON: ${excerpt(line)}` };
  }
  if (!isObject(value)) {
    return { kind: "garbage", reason: `it sent what is no JSON object: ${excerpt(line)}` };
  }
  if ("QMP" in value) return { kind: "greeting" };
  if ("return" in value) return { kind: "return", id: value.id, value: value.return };
  if (isObject(value.error)) {
    const { class: errorClass, desc } = value.error;
    return {
      kind: "error",
      id: value.id,
      errorClass: typeof errorClass === "string" ? errorClass : "GenericError",
      description: typeof desc === "string" ? desc : "no reason given",
    };
  }
  if (typeof value.event === "string") {
    return { kind: "event", event: { name: value.event, data: isObject(value.data) ? value.data : {} } };
  }
  return { kind: "garbage", reason: `it sent what is no message of QMP: ${excerpt(line)}` };
}

function excerpt(line: string): string {
  return printable(line.length > EXCERPT ? `${line.slice(0, EXCERPT)}…` : line);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
