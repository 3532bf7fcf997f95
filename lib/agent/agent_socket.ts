import { errnoOf, fileError, LockvisorError } from "../errors.ts";
import { lstatIfPresent } from "../files/record_file.ts";

/** Those who may ask the agent, where the group exists. */
export const AGENT_GROUP = "lockvisor";
/** Read and write for the owner and the group, nothing for others. */
const SOCKET_UMASK = 0o117;

/** A listening unix socket under its own name. */
export interface AgentSocket {
  listener: Deno.Listener;
  /** Whether its name still leads to it. */
  isThere(): boolean;
  /** Closes it, and takes the name away if it still is this socket's. */
  close(): void;
}

/**
 * Listens on a unix socket: under a passing name first, which then replaces what an agent has left that was killed, so
 * that there is no instant without a socket. Mode 0660, of the group `lockvisor` where there is one.
 * @throws {LockvisorError} `unavailable` when somebody else listens there, `data` when something else has the name
 */
export async function listenOnSocket(path: string): Promise<AgentSocket> {
  const status = lstatIfPresent(path);
  if (status !== undefined && !status.isSocket) {
    throw new LockvisorError("data", `${path} is no socket; move it away, or give another one with --socket`);
  }
  if (status !== undefined && await answers(path)) {
    throw new LockvisorError(
      "unavailable",
      `somebody listens on ${path} already; stop that agent, or give another socket with --socket`,
    );
  }
  const passing = `${path}.${Deno.pid}`;
  const umask = Deno.umask(SOCKET_UMASK);
  let listener: Deno.Listener;
  try {
    removeSocket(passing);
    listener = Deno.listen({ transport: "unix", path: passing }) as unknown as Deno.Listener;
  } catch (error) {
    throw fileError(`listen on ${path}`, error);
  } finally {
    Deno.umask(umask);
  }
  try {
    shareWithGroup(passing, groupId());
    Deno.renameSync(passing, path);
  } catch (error) {
    listener.close();
    removeSocket(passing);
    throw fileError(`make the socket ${path}`, error);
  }
  const inode = lstatIfPresent(path)?.ino;
  const isThere = () => lstatIfPresent(path)?.ino === inode;
  const close = () => {
    try {
      listener.close();
    } catch { /* the server has closed it */ }
    if (isThere()) removeSocket(path);
  };
  return { listener, isThere, close };
}

/** Lets the group through the directory of the socket, if it is one of ours that nobody else may enter. */
export function openDirectoryToGroup(directory: string): void {
  const group = groupId();
  const status = lstatIfPresent(directory);
  if (group === undefined || status === undefined || Deno.uid() !== 0 || status.uid !== 0) return;
  if ((status.mode! & 0o7777) !== 0o700) return; // somebody has decided
  Deno.chownSync(directory, null, group);
  Deno.chmodSync(directory, 0o710);
}

async function answers(path: string): Promise<boolean> {
  try {
    (await Deno.connect({ transport: "unix", path })).close();
    return true;
  } catch {
    return false;
  }
}

/** Only root gives files to a group that it is not in. */
function shareWithGroup(path: string, group: number | undefined): void {
  if (group !== undefined && Deno.uid() === 0) Deno.chownSync(path, null, group);
}

/** The group's number by /etc/group, group(5). Groups of a directory service are not looked for. */
function groupId(): number | undefined {
  let text: string;
  try {
    text = Deno.readTextFileSync("/etc/group");
  } catch {
    return undefined;
  }
  const line = text.split("\n").find((each) => each.startsWith(`${AGENT_GROUP}:`));
  const id = Number(line?.split(":")[2] ?? NaN);
  return Number.isInteger(id) ? id : undefined;
}

function removeSocket(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound) && errnoOf(error) !== "ENOENT") throw error;
  }
}
