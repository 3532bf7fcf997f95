import { peerPath } from "../libc/unix_socket.ts";
import { openDescriptors } from "../process/descriptors.ts";

/** Held while a connection is made, so that of two that are made at once each finds its own descriptor. */
let connecting: Promise<unknown> = Promise.resolve();

/** A connection with what the kernel calls it: `socket:[INODE]`, the same as long as it is open. */
export interface NamedConnection {
  connection: Deno.UnixConn;
  socketName: string;
}

/**
 * Connects to a unix socket and finds out which of our sockets that is: the runtime does not tell the number of its
 * descriptor. It is the one that was not there before; of several, the one whose other end has the wanted file name
 * (the server may have bound it by another way to the same directory). Undefined when that is not clear: somebody
 * else in this program made such a connection in the same instant. To be tried again then.
 * @param connect makes the connection; how long that takes is up to it
 */
export function connectNamed(
  path: string,
  connect: () => Promise<Deno.UnixConn>,
): Promise<NamedConnection | undefined> {
  const attempt = async () => {
    const before = ownSockets();
    const connection = await connect();
    const made = [...ownSockets()].filter(([name]) => !before.has(name));
    const named = made.filter(([, descriptor]) => fileName(peerPath(descriptor)) === fileName(path));
    const [candidate, ...others] = made.length === 1 ? made : named;
    if (candidate !== undefined && others.length === 0) return { connection, socketName: candidate[0] };
    connection.close();
    return undefined;
  };
  const result = connecting.then(attempt, attempt);
  connecting = result.catch(() => {});
  return result;
}

/** The number of the descriptor that has a socket open, or undefined when it is closed. */
export function descriptorOfSocket(socketName: string): number | undefined {
  return ownSockets().get(socketName);
}

/** Our sockets: the kernel's name of each, with its descriptor's number. */
function ownSockets(): Map<string, number> {
  const view = openDescriptors("self");
  const sockets = new Map<string, number>();
  if (view.kind !== "seen") return sockets;
  for (const [descriptor, target] of view.targets) {
    if (target.startsWith("socket:")) sockets.set(target, descriptor);
  }
  return sockets;
}

function fileName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
