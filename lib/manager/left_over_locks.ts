import type { Driver, Holder, Known, ResolvedResource } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { descriptorFlock } from "../process/descriptors.ts";
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
    // Before the look: on a busy host a look takes long, and what it shows may be over by its end.
    const isLast = performance.now() >= deadline;
    const held = isHeldNow(driver, keys);
    if (held !== true) return held;
    const { own, others } = processesHolding(record, keys, { store, driver });
    const rest = keys.filter((key) => !others.has(key));
    const restHeld = isHeldNow(driver, rest);
    if (own.length === 0 && others.size > 0 && restHeld !== true) return restHeld;
    if (own.length === 0 && isTakenElsewhere(record, rest, driver)) return null;
    if (isLast) throw leftOver(record, own);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/**
 * Whether a lock that no process of this host has is the guest's: not if another guest, of another host, has left a
 * note about it.
 */
function isTakenElsewhere({ uuid }: GuestRecord, keys: readonly string[], driver: Driver): boolean {
  return holdersOf(driver, keys).some((holder) => holder.uuid !== null && holder.uuid !== uuid);
}

/** Who stands in the way of these keys. */
function holdersOf(driver: Driver, keys: readonly string[]): Holder[] {
  const resources = keys.map((key): ResolvedResource => {
    const identities = [{ key, text: key, scope: "whole" as const }];
    return { type: "lease", name: key, access: "exclusive", identities, onNetworkStorage: false };
  });
  try {
    return driver.forecast(undefined, resources).flatMap(({ holders }) => holders);
  } catch (error) {
    if (error instanceof LockvisorError && error.code === "unavailable") return []; // it does not tell
    throw error;
  }
}

/** A guest has ended whether or not its lockspace can be asked. */
function isHeldNow(driver: Driver, keys: readonly string[]): Known {
  try {
    return driver.isHeld(keys);
  } catch (error) {
    if (error instanceof LockvisorError && (error.code === "io" || error.code === "config")) return null;
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
 * Who holds these keys in the driver's own lockspace: the processes that are the guest's `own` left-overs, and the keys
 * that `others` have by locks of their own. A process that itself called flock(2) has not inherited the lock from the
 * guest. Processes that we may not look into are among neither.
 */
function processesHolding(
  record: GuestRecord,
  keys: readonly string[],
  { store, driver }: { store: GuestStore; driver: Driver },
) {
  const wanted = new Set(keys);
  const elsewhere = carriersOfOthers(record, store);
  const carriers = new Set(record.carriers.filter((each) => lifeOf(each) === "alive").map(({ pid }) => pid));
  const own: number[] = [];
  const others = new Set<string>();
  // The driver knows its lockspace: another one may have keys of the same names, that of a guest's own lease for one.
  for (const { process: { pid }, locks } of driver.holdings()) {
    const held = locks.filter(({ key }) => wanted.has(key));
    const descriptors = held.flatMap(({ slots }) => Object.values(slots));
    const flock = descriptors.map((descriptor) => descriptorFlock(pid, descriptor))
      .find((each) => each !== undefined);
    if (flock === undefined) continue;
    const isOthers = elsewhere.has(pid) || (flock.pid === pid && !carriers.has(pid));
    if (!isOthers) own.push(pid);
    else for (const { key } of held) others.add(key);
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
