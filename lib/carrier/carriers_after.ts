import type { CarriedLock, Carrier } from "../driver/contract.ts";
import type { Slot } from "../lockspace/slot.ts";
import type { ProcessIdentity } from "../process/process_identity.ts";

/** A slot that is locked in a descriptor of one of a guest's processes. */
export interface PlacedSlot {
  key: string;
  slot: Slot;
  descriptor: number;
  process: ProcessIdentity;
}

/**
 * A guest's carriers once its lost keys are locked again: the slots that are `placed` in processes of the guest, and
 * the carriers that were `added` for the others. `emptied` are holders that have nothing left.
 */
export function carriersAfter(
  carriers: readonly Carrier[],
  { lost, placed, added }: {
    lost: ReadonlySet<string>;
    placed: readonly PlacedSlot[];
    added: readonly Carrier[];
  },
): { carriers: Carrier[]; emptied: Carrier[] } {
  const unplaced = [...placed];
  const updated = carriers.map((carrier): Carrier => {
    const own = takeOut(
      unplaced,
      ({ key, process }) => process.pid === carrier.pid && carrier.locks.some((lock) => lock.key === key),
    );
    const kept = carrier.locks.filter(({ key }) => !lost.has(key));
    return { ...carrier, locks: [...kept, ...locksIn(own)] };
  });
  // A slot in a carrier that had not been said to have its key: in QEMU by its monitor, perhaps.
  const others = updated.map((carrier): Carrier => {
    const own = takeOut(unplaced, ({ process }) => process.pid === carrier.pid);
    return { ...carrier, locks: [...carrier.locks, ...locksIn(own)] };
  });
  const isLeft = ({ kind, locks }: Carrier) => kind === "guest" || locks.length > 0;
  return {
    carriers: [...others.filter(isLeft), ...added.filter(({ locks }) => locks.length > 0)],
    emptied: others.filter((carrier) => carrier.kind === "holder" && !isLeft(carrier)),
  };
}

/** Removes the elements that fit from an array, and gives them. */
function takeOut<Element>(array: Element[], fits: (element: Element) => boolean): Element[] {
  const fitting = array.filter(fits);
  for (const element of fitting) array.splice(array.indexOf(element), 1);
  return fitting;
}

/** Slots as the locks of a carrier, key by key. */
export function locksIn(slots: readonly Pick<PlacedSlot, "key" | "slot" | "descriptor">[]): CarriedLock[] {
  const locks = new Map<string, CarriedLock>();
  for (const { key, slot, descriptor } of slots) {
    const lock = locks.get(key) ?? { key, slots: {} };
    lock.slots[slot] = descriptor;
    locks.set(key, lock);
  }
  return [...locks.values()];
}
