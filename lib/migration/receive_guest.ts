import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { WrongShape } from "../files/json_shape.ts";
import {
  failure,
  type Order,
  parseOrder,
  type Processors,
  type ReceiveOrder,
  type Report,
  STREAM_SOCKET,
} from "./conversation.ts";
import { type ArrivalLocks, completeAlone, holdAlone } from "./carry_on_alone.ts";
import { type IncomingProcess, type IncomingStart, startIncoming } from "./incoming_process.ts";
import { IncomingQemu } from "./incoming_qemu.ts";
import type { LineChannel } from "./line_channel.ts";
import { giveToUserOf, makeSocketDirectory, removeSocketDirectory } from "./socket_directory.ts";

/** The world around a receiver. */
export interface Receiver {
  channel: LineChannel;
  /** This program, and who is greeted by it. */
  hello: Report;
  /** How the guest's process is started: `lockvisor migrate in …`. */
  startOf(order: ReceiveOrder): IncomingStart;
  locksOf(order: ReceiveOrder): ArrivalLocks;
  /** Settles when this process is to end. */
  terminated: Promise<void>;
  /** Silence of the driver that counts as its end, in milliseconds. */
  silenceMs: number;
}

/** How long to wait for the source's half of the locks when the source is told to have ended, in milliseconds. */
const TOLD_MS = 10_000;

/**
 * Receives one guest: starts its QEMU, which waits for it, and does what the driver says. Without the driver it decides
 * alone: before everything has come, the guest does not come, and nothing is left of it here; once it was let go, it runs
 * here; in between it stands still until the source has ended, or somebody has decided.
 */
export async function receiveGuest(receiver: Receiver): Promise<void> {
  receiver.channel.send(receiver.hello);
  const order = await nextOrder(receiver);
  if (order === undefined || order.order !== "receive") return;
  const { channel } = receiver;
  const locks = receiver.locksOf(order);
  let guest: StartedGuest;
  try {
    guest = await startGuest(receiver, order);
  } catch (error) {
    channel.send(failure("never-ran", error));
    return;
  }
  try {
    await attend(receiver, { order, locks, guest });
  } finally {
    await guest.qemu.close();
    removeSocketDirectory(order.socketDirectory);
  }
}

interface StartedGuest {
  process: IncomingProcess;
  qemu: IncomingQemu;
}

async function startGuest(receiver: Receiver, order: ReceiveOrder): Promise<StartedGuest> {
  makeSocketDirectory(order.socketDirectory);
  let process: IncomingProcess | undefined;
  let qemu: IncomingQemu | undefined;
  try {
    process = await startIncoming(receiver.startOf(order));
    failpoint("migrate-receive.started");
    qemu = await IncomingQemu.connect(order.qmp, process.pid, process.ended);
    giveToUserOf(order.socketDirectory, process.pid);
    await qemu.listen(`${order.socketDirectory}/${STREAM_SOCKET}`);
    failpoint("migrate-receive.listening");
    receiver.channel.send({ report: "ready", pid: process.pid } satisfies Report);
    return { process, qemu };
  } catch (error) {
    await qemu?.close();
    await process?.kill();
    if (process !== undefined) await receiver.locksOf(order).cancel().catch(() => {}); // it may have refused itself
    removeSocketDirectory(order.socketDirectory);
    throw error;
  }
}

interface Attended {
  order: ReceiveOrder;
  locks: ArrivalLocks;
  guest: StartedGuest;
}

/** Does what the driver says, until all is done or the driver has gone. */
async function attend(receiver: Receiver, { order, locks, guest }: Attended): Promise<void> {
  const { channel } = receiver;
  let hasArrived = false;
  let processors: Processors = "stay-stopped";
  guest.qemu.arrival.then(({ outcome }) => {
    hasArrived = outcome === "arrived";
    if (hasArrived) channel.send({ report: "arrived" } satisfies Report);
    failpoint("migrate-receive.arrived");
  }, () => {}); // its end is told below
  const died = guest.process.ended.then((error) => ({ kind: "died" as const, error }));
  let next = nextOrder(receiver);
  while (true) {
    const event = await Promise.race([died, next.then((said) => ({ kind: "said" as const, said }))]);
    if (event.kind === "died") {
      await locks.cancel().catch(() => {});
      channel.send(failure("never-ran", event.error));
      return;
    }
    switch (event.said?.order) {
      case "sent":
        processors = event.said.processors;
        break;
      case "go":
        return await letRun(receiver, { order, locks, guest }, processors);
      case "cancel":
        return await cancel(receiver, { order, locks, guest });
      case undefined:
        if (!hasArrived) return await cancel(receiver, { order, locks, guest });
        await guest.qemu.close();
        return await holdAlone(locks, { pid: guest.process.pid, processors });
    }
    next = nextOrder(receiver);
  }
}

async function cancel({ channel }: Receiver, { locks, guest }: Attended): Promise<void> {
  await guest.qemu.close(); // the monitor talks to one at a time
  try {
    await locks.cancel();
    channel.send({ report: "cancelled" } satisfies Report);
  } catch (error) {
    await guest.process.kill(); // whatever its locks are: nobody feeds it any more
    await locks.cancel().catch(() => {});
    channel.send(failure("never-ran", error));
  }
}

/** From here on there is no way back: the guest runs here, with the driver or without. */
async function letRun(
  receiver: Receiver,
  { locks, guest }: Attended,
  processors: Processors,
): Promise<void> {
  const { channel } = receiver;
  failpoint("migrate-receive.going");
  try {
    const went = await guest.qemu.go(processors);
    if (went.outcome === "refused") {
      await guest.qemu.close();
      await guest.process.kill();
      await locks.cancel().catch(() => {});
      channel.send(failure("never-ran", new LockvisorError("unavailable", went.reason)));
      return;
    }
  } catch (error) {
    channel.send(failure("may-run", error));
    return;
  }
  channel.send({ report: "running" } satisfies Report);
  failpoint("migrate-receive.running");
  await guest.qemu.close();
  let order: Order | undefined;
  do order = await nextOrder(receiver); while (order !== undefined && order.order !== "complete");
  try {
    const { outcome, holders } = order === undefined
      ? await completeAlone(locks)
      : await locks.complete({ waitMs: TOLD_MS });
    failpoint("migrate-receive.completed");
    const isWaiting = outcome === "waiting";
    channel.send(
      { report: "completed", outcome: isWaiting ? outcome : "complete", holders } satisfies Report,
    );
  } catch (error) {
    channel.send(failure("may-run", error));
  }
}

/** What the driver says next; undefined when it has gone, or this process is to end. */
async function nextOrder({ channel, terminated, silenceMs }: Receiver): Promise<Order | undefined> {
  while (true) {
    const outcome = await Promise.race([channel.next(silenceMs), terminated.then(() => undefined)]);
    if (outcome?.kind !== "line") return undefined;
    let order: Order;
    try {
      order = parseOrder(outcome.line);
    } catch (error) {
      if (!(error instanceof WrongShape)) throw error;
      const message =
        `what the other end says is not understood: ${error.message}; both must be of one version`;
      channel.send(failure("never-ran", new LockvisorError("data", message)));
      return undefined;
    }
    if (order.order !== "alive") return order;
  }
}
