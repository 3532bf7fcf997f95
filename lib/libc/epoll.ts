import { addressOf, lastError, LIBC, syscall } from "./syscall.ts";
import { closeDescriptor } from "./pidfd.ts";

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLLIN = 1;
/** struct epoll_event is packed on x86-64 only; epoll_event(3type), sys/epoll.h. */
const EVENT = Deno.build.arch === "x86_64" ? { bytes: 12, data: 4 } : { bytes: 16, data: 8 };
/** Descriptors that one wait may tell of; the others are told by the next one. */
const MOST_EVENTS = 256;

let waiter: ReturnType<typeof openWaiter> | undefined;

/** epoll_wait(2) blocks, so it runs on a thread of the runtime's pool: one, for however many descriptors. */
function openWaiter() {
  return Deno.dlopen(LIBC, {
    epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32", nonblocking: true },
  }).symbols;
}

/** A set of descriptors that is waited for as one, epoll(7). To be closed with {@linkcode closeDescriptor}. */
export function createEpoll(): { outcome: "ok"; descriptor: number } | { outcome: "failed"; errno: number } {
  const descriptor = syscall("epoll_create1", EPOLL_CLOEXEC);
  return descriptor >= 0 ? { outcome: "ok", descriptor } : { outcome: "failed", errno: lastError() };
}

/**
 * Has a descriptor watched until it can be read: a pidfd can when its process has ended, pidfd_open(2).
 * @param token what {@linkcode waitForDescriptors} names it by: a whole number that no other one ever had. The
 * descriptor's own number may be another one's by the time when somebody hears of it.
 */
export function watchDescriptor(
  epoll: number,
  descriptor: number,
  token: number,
): { outcome: "ok" } | { outcome: "failed"; errno: number } {
  const event = new Uint8Array(EVENT.bytes);
  const view = new DataView(event.buffer);
  view.setUint32(0, EPOLLIN, true);
  view.setBigUint64(EVENT.data, BigInt(token), true);
  const added = syscall("epoll_ctl", epoll, EPOLL_CTL_ADD, descriptor, addressOf(event));
  return added === 0 ? { outcome: "ok" } : { outcome: "failed", errno: lastError() };
}

/** Takes a descriptor out of the set and closes it. In this order: a copy elsewhere would keep it in the set. */
export function unwatchAndClose(epoll: number, descriptor: number): void {
  syscall("epoll_ctl", epoll, EPOLL_CTL_DEL, descriptor, addressOf(new Uint8Array(EVENT.bytes)));
  closeDescriptor(descriptor);
}

/** Waits until descriptors of the set can be read, and gives their tokens; none when a signal cut the wait short. */
export async function waitForDescriptors(epoll: number): Promise<number[]> {
  const { epoll_wait } = waiter ??= openWaiter();
  const events = new Uint8Array(EVENT.bytes * MOST_EVENTS);
  const count = await epoll_wait(epoll, events, MOST_EVENTS, -1);
  const view = new DataView(events.buffer);
  return Array.from(
    { length: Math.max(count, 0) },
    (_, at) => Number(view.getBigUint64(at * EVENT.bytes + EVENT.data, true)),
  );
}
