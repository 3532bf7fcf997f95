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
 * Connects to a QMP socket. QEMU talks to one client at a time and lets one or two wait; to the next the kernel says
 * EAGAIN, connect(2), and it is asked again.
 * @throws {LockvisorError} `unavailable` or `permission` when that fails or takes longer than `deadlineMs`
 */
export async function openConnection(path: string, deadlineMs: number): Promise<NamedConnection> {
  for (let attempt = 0; attempt < CONNECT_ATTEMPTS; attempt++) {
    const named = await connectNamed(path, () => connectWithin(path, deadlineMs));
    if (named !== undefined) return named;
  }
  throw socketFailure(path, "its descriptor cannot be told from other sockets of this program; try again");
}

/** How long to wait, in milliseconds, before a server is asked again whose queue of connections is full. */
const QUEUE_PAUSE_MS = 20;

async function connectWithin(path: string, deadlineMs: number): Promise<Deno.UnixConn> {
  const deadline = performance.now() + deadlineMs;
  const late = () => socketFailure(path, `no connection within ${deadlineMs} ms`);
  while (true) {
    const connecting = Deno.connect({ transport: "unix", path });
    let outcome;
    try {
      outcome = await withinDeadline(connecting, Math.max(0, deadline - performance.now()));
    } catch (error) {
      if (errnoOf(error) === "EAGAIN") {
        if (performance.now() >= deadline) throw late();
        await new Promise((resolve) => setTimeout(resolve, QUEUE_PAUSE_MS));
        continue;
      }
      throw connectFailure(path, error);
    }
    if (outcome.kind === "done") return outcome.value;
    connecting.then((connection) => connection.close(), () => {});
    throw late();
  }
}

function connectFailure(path: string, error: unknown): LockvisorError {
  if (error instanceof Deno.errors.PermissionDenied) {
    return new LockvisorError("permission", `QMP socket ${path}: permission denied`, { cause: error });
  }
  return socketFailure(path, connectReason(error), error);
}

function connectReason(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "it is not there";
  if (error instanceof Deno.errors.ConnectionRefused) return "nobody listens on it";
  return `no connection: ${reasonOf(error)}`;
}
