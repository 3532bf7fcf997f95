import type { Invocation } from "./parse.ts";
import { exitStatusOf, printable } from "../errors.ts";
import { leftOverTemporaries } from "../files/temporaries.ts";
import { removeIfPresent } from "../files/atomic_write.ts";
import { collectGarbage, type Garbage } from "../lockspace/collect_garbage.ts";
import { openLockspace } from "../lockspace/lockspace.ts";
import { lifeOf } from "../process/process_identity.ts";
import type { GuestStore } from "../manager/guest_store.ts";
import type { CliContext } from "./context.ts";
import { openSession } from "./session.ts";

/** `lockvisor gc`: remove what nobody needs any more from the lockspace. */
export async function run({ options }: Invocation, context: CliContext): Promise<number> {
  const { settings, store } = await openSession(options, context);
  const action = options.isGiven("dry-run") ? "list" : "remove";
  const lockspace = openLockspace(settings.lockspace, context.effectiveUid, settings.storage);
  const garbage = collectGarbage(lockspace, { action, hostId: settings.hostId, spared: sparedKeys(store) });
  const temporaries = [lockspace.path, `${settings.runtimeDir}/guests`].flatMap(leftOverTemporaries);
  if (action === "remove") temporaries.forEach(removeIfPresent);
  garbage.removed.push(...temporaries);
  for (const problem of garbage.problems) context.note(`warning: ${problem}`);
  context.out(
    options.isGiven("json")
      ? JSON.stringify({ lockspace: lockspace.path, dryRun: action === "list", ...garbage }) + "\n"
      : formatGarbage(garbage, action),
  );
  return garbage.problems.length === 0 ? 0 : exitStatusOf("data");
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

function formatGarbage({ removed, inUse }: Garbage, action: "remove" | "list"): string {
  const verb = action === "list" ? "would remove" : "removed";
  const files = `${removed.length} ${removed.length === 1 ? "file" : "files"}`;
  const keys = `${inUse} ${inUse === 1 ? "key" : "keys"} in use`;
  return [...removed.map((path) => `${verb} ${printable(path)}`), `${verb} ${files}; ${keys}`].join("\n") +
    "\n";
}
