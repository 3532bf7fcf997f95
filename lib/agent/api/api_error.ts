import type { HttpResponse } from "../../http/message.ts";
import { type ErrorCode, LockvisorError } from "../../errors.ts";
import { AbsentGuest } from "../../manager/absent_guest.ts";

/** HTTP statuses by error code. What the command line says with an exit status, the agent says with these. */
const STATUS: Record<ErrorCode, number> = {
  usage: 422,
  data: 422,
  unavailable: 503,
  internal: 500,
  "cannot-create": 507,
  io: 500,
  locked: 409,
  permission: 403,
  config: 500,
  "not-executable": 422,
  "not-found": 422,
};

/** A guest, or a way, that is not there: the command line's words, with the status that HTTP has for it. */
export class NotThere extends LockvisorError {}

/** The status that stands for an error. */
export function statusOf(error: LockvisorError): number {
  return error instanceof NotThere || error instanceof AbsentGuest ? 404 : STATUS[error.code];
}

/** An error as the answer to a request. */
export function errorResponse(error: LockvisorError, status: number = statusOf(error)): HttpResponse {
  return jsonResponse(status, error.toJSON());
}

/** An answer in JSON. */
export function jsonResponse(
  status: number,
  value: unknown,
  headers: Record<string, string> = {},
): HttpResponse {
  return {
    status,
    headers: { "content-type": "application/json", "cache-control": "no-store", ...headers },
    body: JSON.stringify(value) + "\n",
  };
}

/** What went wrong with the message itself, in the same form as every other error. */
export function protocolError(status: number, text: string): string {
  const code: ErrorCode = status >= 500 && status !== 501 && status !== 505 ? "unavailable" : "usage";
  return JSON.stringify({ error: { code, message: text } }) + "\n";
}
