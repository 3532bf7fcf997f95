import type { DriverConfig } from "../driver/contract.ts";
import { removeIfPresent } from "../files/atomic_write.ts";
import { leftOverTemporaries } from "../files/temporaries.ts";
import { collectGarbage, type Garbage } from "../lockspace/collect_garbage.ts";
import { openLockspace } from "../lockspace/lockspace.ts";
import { lifeOf } from "../process/process_identity.ts";
import type { GuestStore } from "./guest_store.ts";

/** What was found in a lockspace, and which one it was. */
export type TidyReport = Garbage & { lockspace: string };

/**
 * Removes lock files that nobody needs, notes of guests that are gone, and what killed writers left behind; or tells
 * what would be removed.
 */
export function tidyLockspace(
  { lockspace: location, effectiveUid, storage, host }: DriverConfig,
  store: GuestStore,
  action: "remove" | "list",
): TidyReport {
  const lockspace = openLockspace(location, effectiveUid, storage);
  const garbage = collectGarbage(lockspace, { action, hostId: host.id, spared: sparedKeys(store) });
  const temporaries = [lockspace.path, `${store.runtimeDir}/guests`].flatMap(leftOverTemporaries);
  if (action === "remove") temporaries.forEach(removeIfPresent);
  return { ...garbage, removed: [...garbage.removed, ...temporaries], lockspace: lockspace.path };
}

/** Keys of the guests that live here by their records, whether or not they hold them at this moment. */
function sparedKeys(store: GuestStore): Set<string> {
  const living = store.list().flatMap((entry) =>
    entry.kind === "record" && lifeOf(entry.record.carriers[0]) !== "dead" ? [entry.record] : []
  );
  return new Set(living.flatMap((record) => [
    ...record.leaseKeys,
    ...record.resources.flatMap(({ keys }) => keys),
    ...record.carriers.flatMap(({ locks }) => locks.map(({ key }) => key)),
  ]));
}
