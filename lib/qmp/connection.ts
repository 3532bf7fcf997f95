import { errnoOf, LockvisorError } from "../errors.ts";
import { withinDeadline } from "./deadline.ts";
import { connectNamed, type NamedConnection } from "./socket_inode.ts";

/** A fault of a QMP socket, as the error that names it. */
export function socketFailure(path: string, reason: string, cause?: unknown): LockvisorError {
  return new LockvisorError("unavailable", `QMP socket ${path}: ${reason}`, {
    details: { socket: path },
    cause,
  });
}

/** Why a call on a connection failed, in words. */
export function reasonOf(error: unknown): string {
  const errno = errnoOf(error);
  if (errno === "EPIPE" || errno === "ECONNRESET") return "it closed the connection";
  return error instanceof Error ? error.message : String(error);
}

/** How often a connection is tried whose descriptor could not be told from others. */
const CONNECT_ATTEMPTS = 10;

/**
 * Connects to a QMP socket.
 * @throws {LockvisorError} `unavailable` or `permission` when that fails or takes longer than `deadlineMs`
 */
export async function openConnection(path: string, deadlineMs: number): Promise<NamedConnection> {
  for (let attempt = 0; attempt < CONNECT_ATTEMPTS; attempt++) {
    const named = await connectNamed(path, () => connectWithin(path, deadlineMs));
    if (named !== undefined) return named;
  }
  throw socketFailure(path, "its descriptor cannot be told from other sockets of this program; try again");
}

async function connectWithin(path: string, deadlineMs: number): Promise<Deno.UnixConn> {
  const connecting = Deno.connect({ transport: "unix", path });
  let outcome;
  try {
    outcome = await withinDeadline(connecting, deadlineMs);
  } catch (error) {
    if (error instanceof Deno.errors.PermissionDenied) {
      throw new LockvisorError("permission", `QMP socket ${path}: permission denied`, { cause: error });
    }
    throw socketFailure(path, connectReason(error), error);
  }
  if (outcome.kind === "done") return outcome.value;
  connecting.then((connection) => connection.close(), () => {});
  throw socketFailure(path, `no connection within ${deadlineMs} ms`);
}

function connectReason(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "it is not there";
  if (error instanceof Deno.errors.ConnectionRefused) return "nobody listens on it";
  return `no connection: ${reasonOf(error)}`;
}
