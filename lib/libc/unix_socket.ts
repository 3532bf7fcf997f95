import { addressOf, LIBC } from "./syscall.ts";

let library: ReturnType<typeof open> | undefined;

function open() {
  return Deno.dlopen(LIBC, {
    sendmsg: { parameters: ["i32", "buffer", "i32"], result: "isize" },
    getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  }).symbols;
}

function symbols() {
  return library ??= open();
}

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const SO_PEERCRED = 17;
/** Neither wait for room in the socket nor raise SIGPIPE when the peer has gone. */
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/**
 * Sends bytes over a connected unix socket and with them a copy of a descriptor, SCM_RIGHTS of unix(7). Never
 * waits. Gives the number of bytes sent, or -1 when nothing was.
 */
export function sendWithDescriptor(
  socket: number,
  bytes: Uint8Array<ArrayBuffer>,
  descriptor: number,
): number {
  // struct iovec: address, length.
  const parts = new Uint8Array(new BigUint64Array([addressOf(bytes), BigInt(bytes.length)]).buffer);
  // struct cmsghdr (length, level, type) with one int, padded to 8 bytes.
  const control = new Uint8Array(24);
  const c = new DataView(control.buffer);
  c.setBigUint64(0, 20n, true);
  c.setInt32(8, SOL_SOCKET, true);
  c.setInt32(12, SCM_RIGHTS, true);
  c.setInt32(16, descriptor, true);
  // struct msghdr: no address, one part, the control data, no flags.
  const header = new Uint8Array(56);
  const h = new DataView(header.buffer);
  h.setBigUint64(16, addressOf(parts), true);
  h.setBigUint64(24, 1n, true);
  h.setBigUint64(32, addressOf(control), true);
  h.setBigUint64(40, BigInt(control.length), true);
  return Number(symbols().sendmsg(socket, header, MSG_DONTWAIT | MSG_NOSIGNAL));
}

/** Who is at the other end of a unix socket, as of its listen(2) or connect(2): SO_PEERCRED of unix(7). */
export function peerPid(socket: number): number | undefined {
  const credentials = new Uint8Array(12); // struct ucred: pid, uid, gid
  const length = new Uint8Array(new Uint32Array([credentials.length]).buffer);
  if (symbols().getsockopt(socket, SOL_SOCKET, SO_PEERCRED, credentials, length) !== 0) return undefined;
  return new DataView(credentials.buffer).getInt32(0, true);
}

/** Where in struct sockaddr_un the path begins, and how long the whole may be; unix(7). */
const PATH_OFFSET = 2;
const ADDRESS_BYTES = 110;

/** The path that the other end of a unix socket was bound to, as it was written then; "" when it was to none. */
export function peerPath(socket: number): string {
  const address = new Uint8Array(ADDRESS_BYTES);
  const length = new Uint32Array([ADDRESS_BYTES]);
  if (symbols().getpeername(socket, address, new Uint8Array(length.buffer)) !== 0) return "";
  const path = address.subarray(PATH_OFFSET, Math.min(length[0]!, ADDRESS_BYTES));
  const end = path.indexOf(0);
  return new TextDecoder().decode(end < 0 ? path : path.subarray(0, end));
}
