import { closeDescriptor } from "./pidfd.ts";
import { addressOf, lastError, syscall } from "./syscall.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
/** struct sockaddr_un: a path of at most 107 bytes and its end; unix(7). */
const LONGEST_ADDRESS = 107;

/**
 * Sends one datagram to a unix socket by its path, or, when the address begins with `@`, by its abstract name; unix(7).
 * Does not wait for an answer.
 */
export function sendDatagram(
  address: string,
  text: string,
): { outcome: "ok" } | { outcome: "failed"; errno: number } {
  const name = new TextEncoder().encode(address);
  if (name.length > LONGEST_ADDRESS) return { outcome: "failed", errno: ENAMETOOLONG };
  const socket = syscall("socket", AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return { outcome: "failed", errno: lastError() };
  try {
    const bytes = new Uint8Array(2 + LONGEST_ADDRESS + 1);
    new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
    bytes.set(name, 2);
    if (name[0] === AT) bytes[2] = 0;
    if (syscall("connect", socket, addressOf(bytes), 2 + name.length) !== 0) {
      return { outcome: "failed", errno: lastError() };
    }
    const message = new TextEncoder().encode(text);
    const sent = syscall("write", socket, addressOf(message), message.length);
    return sent === message.length ? { outcome: "ok" } : { outcome: "failed", errno: lastError() };
  } finally {
    closeDescriptor(socket);
  }
}

const AT = "@".charCodeAt(0);
const ENAMETOOLONG = 36;
