import type { CarriedLock, Carrier } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { type Slot, slotPath, SLOTS } from "../lockspace/slot.ts";
import { descriptorFlock, hiddenDescriptors, openDescriptors } from "../process/descriptors.ts";
import type { ProcessIdentity } from "../process/process_identity.ts";
import { QmpClient, QmpCommandError } from "../qmp/client.ts";

/** How long each step with the monitor may take, in milliseconds: it talks to one at a time, and may be taken. */
const MONITOR_DEADLINE_MS = 2000;

/** QEMU with its monitor. */
export interface MonitoredGuest {
  process: ProcessIdentity;
  /** The path of its QMP socket. */
  socket: string;
}

/** A slot that is open here and is to be held by QEMU. */
export interface SlotToSend {
  key: string;
  slot: Slot;
  descriptor: number;
}

/** What asking QEMU to hold descriptors gave; without its monitor there are other ways. */
export type MonitorOutcome = { outcome: "carried"; carrier: Carrier } | {
  outcome: "unavailable";
  reason: string;
};

/** The name of a slot's descriptor inside QEMU. */
export function descriptorName(key: string, slot: Slot): string {
  return `lockvisor-${key}-${slot}`;
}

/**
 * Hands locked descriptors to QEMU itself (QMP `getfd`): they live as long as it does and need no process beside
 * it. `add-fd` would lose them when the monitor's connection ends. All or none: if one cannot be handed over, those
 * before are closed again.
 */
export async function carryInMonitor(
  lockspace: Lockspace,
  guest: MonitoredGuest,
  slots: readonly SlotToSend[],
): Promise<MonitorOutcome> {
  const { pid } = guest.process;
  // Before anything is sent: what it got could not be found there.
  if (openDescriptors(pid).kind === "hidden") {
    return { outcome: "unavailable", reason: hiddenDescriptors(pid).message };
  }
  try {
    return await withQemu(guest, async (qemu) => {
      const sent: string[] = [];
      try {
        for (const { key, slot, descriptor } of slots) {
          sent.push(descriptorName(key, slot));
          await qemu.sendDescriptor(descriptorName(key, slot), descriptor);
          failpoint("monitor.sent");
        }
        failpoint("monitor.all-sent");
      } catch (error) {
        for (const name of sent.reverse()) await qemu.closeDescriptor(name).catch(() => {}); // perhaps never arrived
        throw error;
      }
      const locks = locksInside(lockspace, pid, slots);
      return { outcome: "carried", carrier: { ...guest.process, kind: "monitor", locks } };
    });
  } catch (error) {
    if (error instanceof LockvisorError) return { outcome: "unavailable", reason: error.message };
    throw error;
  }
}

/** Has QEMU close the descriptors of some keys. Says whether it did; if not, the flocks are to be released one by one. */
export async function closeInMonitor(
  guest: MonitoredGuest,
  locks: readonly CarriedLock[],
): Promise<"closed" | "failed"> {
  let outcome: "closed" | "failed" = "closed";
  try {
    await withQemu(guest, async (qemu) => {
      for (const { key, slots } of locks) {
        for (const slot of SLOTS.filter((candidate) => candidate in slots).reverse()) {
          try {
            await qemu.closeDescriptor(descriptorName(key, slot));
          } catch (error) {
            if (!(error instanceof QmpCommandError)) throw error;
            outcome = "failed"; // it was not handed this one; the others it may have
          }
        }
      }
    });
    return outcome;
  } catch (error) {
    if (error instanceof LockvisorError) return "failed";
    throw error;
  }
}

/**
 * Has QEMU close what it was handed of some keys although no carrier of the guest's record has them: an `acquire` was
 * killed while it handed them over, and they would be in its own way when it is repeated. Without the monitor, or the
 * right to look into QEMU, they stay: whoever asks for these keys is refused then.
 */
export async function closeLeftInMonitor(
  lockspace: Lockspace,
  guest: MonitoredGuest,
  { carriers, keys }: { carriers: readonly Carrier[]; keys: readonly string[] },
): Promise<void> {
  const recorded = new Set(carriers.flatMap(({ locks }) => locks.map(({ key }) => key)));
  const view = openDescriptors(guest.process.pid);
  const open = new Map(view.kind === "seen" ? [...view.targets].map(([number, path]) => [path, number]) : []);
  const left = keys.filter((key) => !recorded.has(key)).flatMap((key) =>
    SLOTS.filter((slot) => {
      const number = open.get(slotPath(lockspace, key, slot));
      return number !== undefined && descriptorFlock(guest.process.pid, number) !== undefined;
    }).map((slot) => descriptorName(key, slot))
  );
  if (left.length === 0) return;
  try {
    await withQemu(guest, async (qemu) => {
      // What it does not know by this name it was not handed here.
      for (const name of left) await qemu.closeDescriptor(name).catch(() => {});
    });
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
  }
}

async function withQemu<Result>(
  { process, socket }: MonitoredGuest,
  action: (qemu: QmpClient) => Promise<Result>,
): Promise<Result> {
  const path = socket.startsWith("/") ? socket : `/proc/${process.pid}/cwd/${socket}`;
  const qemu = await QmpClient.connect(path, { deadlineMs: MONITOR_DEADLINE_MS, expectedPid: process.pid });
  try {
    return await action(qemu);
  } finally {
    await qemu.close();
  }
}

/**
 * The numbers that the descriptors have in QEMU. A disk that was there at the start and was released may still be
 * open there too, without a lock: of several, the one with a lock is meant.
 */
function locksInside(lockspace: Lockspace, pid: number, slots: readonly SlotToSend[]): CarriedLock[] {
  const view = openDescriptors(pid);
  const open = view.kind === "seen" ? [...view.targets] : [];
  const locks = new Map<string, CarriedLock>();
  for (const { key, slot } of slots) {
    const path = slotPath(lockspace, key, slot);
    const numbers = open.filter(([, target]) => target === path).map(([number]) => number);
    const number = numbers.find((candidate) => descriptorFlock(pid, candidate) !== undefined) ??
      numbers.at(-1);
    if (number === undefined) {
      throw new LockvisorError(
        "unavailable",
        `QEMU (pid ${pid}) does not show the descriptor of ${path} that it was given`,
      );
    }
    const lock = locks.get(key) ?? { key, slots: {} };
    lock.slots[slot] = number;
    locks.set(key, lock);
  }
  return [...locks.values()];
}
