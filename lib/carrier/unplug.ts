import { failpoint } from "../failpoint.ts";
import type { CarriedLock, Carrier, UnplugOutcome } from "../driver/contract.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { type Slot, slotPath, SLOTS } from "../lockspace/slot.ts";
import { closeInMonitor } from "./monitor.ts";
import { sendSignal } from "../process/ending.ts";
import { type RemoteFile, requireReach, steerFlock } from "./steer.ts";

/** What a guest holds and how to reach it. */
export interface UnplugSource {
  carriers: readonly Carrier[];
  /** The path of its QMP socket. */
  qmp: string | null;
}

/**
 * Gives up keys in whichever carrier holds them. What QEMU was handed it closes again; a holder that has nothing left
 * ends. What a carrier does not hold any more is told and is no failure: the guest has lost the disk, and nothing may
 * block that.
 * @param remember told before the first lock goes
 * @throws {LockvisorError} `permission` when one of the processes cannot be reached; nothing was told or given up then
 */
export async function unplugKeys(
  lockspace: Lockspace,
  { carriers, qmp }: UnplugSource,
  keys: readonly string[],
  remember: () => void = () => {},
): Promise<UnplugOutcome> {
  const wanted = new Set(keys);
  for (const carrier of carriers) {
    const files = carrier.locks.filter(({ key }) => wanted.has(key)).flatMap(({ key, slots }) =>
      SLOTS.filter((slot) => slot in slots).map((slot) => fileOf(lockspace, key, slot, slots))
    );
    if (files.length > 0) requireReach(carrier, files);
  }
  remember();
  const missing: string[] = [];
  const remaining: Carrier[] = [];
  failpoint("release.begun");
  for (const carrier of carriers) {
    const given = carrier.locks.filter(({ key }) => wanted.has(key));
    const locks = carrier.locks.filter(({ key }) => !wanted.has(key));
    for (const lock of given) {
      if (!releaseLock(lockspace, carrier, lock)) missing.push(lock.key);
      failpoint("release.key-released");
    }
    failpoint("release.carrier-released");
    // Released already, so that QEMU's monitor cannot stand in the way; closing only tidies up.
    if (carrier.kind === "monitor" && qmp !== null && given.length > 0) {
      await closeInMonitor({ process: carrier, socket: qmp }, given);
    }
    failpoint("release.closed");
    if (carrier.kind === "holder" && locks.length === 0) sendSignal(carrier, "SIGTERM");
    if (carrier.kind === "guest" || locks.length > 0) remaining.push({ ...carrier, locks });
  }
  const known = new Set(carriers.flatMap(({ locks }) => locks.map(({ key }) => key)));
  return { carriers: remaining, missing: [...missing, ...keys.filter((key) => !known.has(key))] };
}

function fileOf(lockspace: Lockspace, key: string, slot: Slot, slots: CarriedLock["slots"]): RemoteFile {
  return { path: slotPath(lockspace, key, slot), descriptor: slots[slot] };
}

/** Releases slot b before slot a, the reverse of taking. Says whether the carrier had them. */
function releaseLock(lockspace: Lockspace, carrier: Carrier, { key, slots }: CarriedLock): boolean {
  const held = SLOTS.filter((slot: Slot) => slot in slots).reverse();
  const results = held.map((slot) => {
    const result = steerFlock(carrier, fileOf(lockspace, key, slot, slots), "released");
    failpoint("release.slot-released");
    return result;
  });
  return results.every((result) => result === "done");
}
