import type { Driver, Holder, Known, ResolvedResource } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { descriptorFlock, openDescriptors } from "../process/descriptors.ts";
import { commandName, lifeOf } from "../process/process_identity.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";

/** A holder beside a guest ends within an instant of it; so long a lock may outlive the guest, in milliseconds. */
const AFTERLIFE_MS = 2000;
const PAUSE_MS = 20;

/** Every key that a guest was given: those of its resources, of its carriers, and of the lease on itself. */
export function keysOfGuest({ carriers, resources, leaseKeys }: GuestRecord): string[] {
  const carried = carriers.flatMap(({ locks }) => locks.map(({ key }) => key));
  return [...new Set([...leaseKeys, ...resources.flatMap(({ keys }) => keys), ...carried])];
}

/**
 * Has the kernel prove that a guest that has ended holds none of these keys any more. A lock that another guest has
 * by now, or shared with it, is not this guest's.
 * @returns false for "not held", null where it cannot be known from here: the lockspace does not answer, or somebody
 * has the lock whom this kernel does not show
 * @throws {LockvisorError} `locked` when a process still has one, naming it
 */
export async function proveReleased(
  record: GuestRecord,
  keys: readonly string[],
  { store, driver }: { store: GuestStore; driver: Driver | undefined },
): Promise<Exclude<Known, true>> {
  if (driver === undefined) return null;
  const deadline = performance.now() + AFTERLIFE_MS;
  while (true) {
    const held = isHeldNow(driver, keys);
    if (held !== true) return held;
    const { own, others } = processesHolding(record, keys, store);
    if (own.length === 0 && others.length > 0) return false;
    if (performance.now() >= deadline) return judgeLate(record, keys, { own, store, driver });
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/**
 * What a lock means that outlived the guest's holders. Where the kernel does not show who has it, a process of this
 * host that has the lock file open inherited it, and a guest that left a note has taken it, on another host.
 * @throws {LockvisorError} `locked` for a left-over of the guest
 */
function judgeLate(
  record: GuestRecord,
  keys: readonly string[],
  { own, store, driver }: { own: readonly number[]; store: GuestStore; driver: Driver },
): null {
  if (own.length > 0) throw leftOver(record, own);
  const elsewhere = carriersOfOthers(record, store);
  const heirs = driver.holdings().filter(({ process, locks }) =>
    !elsewhere.has(process.pid) && locks.some(({ key }) => keys.includes(key))
  );
  const { uuid } = record;
  const isTaken = holdersOf(driver, keys).some((holder) => holder.uuid !== null && holder.uuid !== uuid);
  if (heirs.length > 0 || !isTaken) throw leftOver(record, heirs.map(({ process }) => process.pid));
  return null;
}

/** Who stands in the way of these keys. */
function holdersOf(driver: Driver, keys: readonly string[]): Holder[] {
  const resources = keys.map((key): ResolvedResource => {
    const identities = [{ key, text: key, scope: "whole" as const }];
    return { type: "lease", name: key, access: "exclusive", identities, onNetworkStorage: false };
  });
  return driver.forecast(undefined, resources).flatMap(({ holders }) => holders);
}

/** A guest has ended whether or not its lockspace can be asked. */
function isHeldNow(driver: Driver, keys: readonly string[]): Known {
  try {
    return driver.isHeld(keys);
  } catch (error) {
    if (error instanceof LockvisorError && error.code === "io") return null;
    throw error;
  }
}

function leftOver(record: GuestRecord, own: readonly number[]): LockvisorError {
  const processes = own.map((pid) => ({ pid, command: commandName(pid) ?? null }));
  const who = processes.length === 0
    ? "a process that cannot be seen from here"
    : processes.map(({ pid, command }) => `process ${pid}${command === null ? "" : ` (${command})`}`).join(
      ", ",
    );
  return new LockvisorError(
    "locked",
    `guest "${record.name}" (pid ${
      record.carriers[0].pid
    }) has ended, but its locks are still held by ${who}, which inherited them; if that is the guest itself, run: lockvisor attach; if not, end it`,
    { details: { guest: { uuid: record.uuid, name: record.name }, processes } },
  );
}

/**
 * The processes that have a flock on the lock files of these keys: the guest's `own` left-overs, and `others` whose
 * locks are their own. A process that itself called flock(2) has not inherited the lock from the guest.
 */
function processesHolding(record: GuestRecord, keys: readonly string[], store: GuestStore) {
  const wanted = new Set(keys);
  const elsewhere = carriersOfOthers(record, store);
  const carriers = new Set(record.carriers.filter((each) => lifeOf(each) === "alive").map(({ pid }) => pid));
  const own: number[] = [];
  const others: number[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === Deno.pid) continue;
    const view = openDescriptors(pid);
    if (view.kind !== "seen") continue;
    for (const [descriptor, target] of view.targets) {
      const key = /\/([0-9a-f]{64})\.[ab]$/.exec(target)?.[1];
      if (key === undefined || !wanted.has(key)) continue;
      const flock = descriptorFlock(pid, descriptor);
      if (flock === undefined) continue;
      const isOthers = elsewhere.has(pid) || (flock.pid === pid && !carriers.has(pid));
      (isOthers ? others : own).push(pid);
      break;
    }
  }
  return { own, others };
}

/** Processes that carry the locks of other guests, or of this one after another start. */
function carriersOfOthers(record: GuestRecord, store: GuestStore): Set<number> {
  const [self] = record.carriers;
  const records = store.list().flatMap((entry) => entry.kind === "record" ? [entry.record] : []);
  const foreign = records.filter(({ uuid, carriers: [first] }) =>
    uuid !== record.uuid || first.pid !== self.pid || first.startTime !== self.startTime
  );
  const living = foreign.flatMap(({ carriers }) => carriers.filter((each) => lifeOf(each) === "alive"));
  return new Set(living.map(({ pid }) => pid));
}
