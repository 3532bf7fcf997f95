import type { Carrier, Driver, Holding, RegainOutcome } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { carriersAfter } from "../carrier/carriers_after.ts";
import { failpoint } from "../failpoint.ts";
import { lifeOf } from "../process/process_identity.ts";
import { runningGuest } from "./attached_record.ts";
import { finishAccess } from "./finish_access.ts";
import { finishRelease } from "./finish_release.ts";
import { type GuestRecord, withGrants } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { HeldLocks, keysIn, knownKeys, otherwiseHeld, slotsOf, wantedKeys, wholeKeys } from "./held_locks.ts";
import { claimsOf, lostResources, unheldKeys } from "./lost_locks.ts";
import { migrationNotice } from "./migration_plan.ts";
import { type Obstacle, obstacleOf } from "./obstacle.ts";
import { protectResources } from "./protect_resources.ts";
import { finishPausing, finishResuming, giveUpLocks } from "./pause_guest.ts";

/** A guest whose record is in doubt, and what is said about it. */
export interface GuestUnderRepair {
  record: GuestRecord;
  repairs: string[];
  warnings: string[];
  obstacle?: Obstacle;
}

/** What mending works with. */
export interface MendingContext {
  store: GuestStore;
  driver: Driver;
  /** What the one pass over all processes has shown at the beginning. */
  seen: HeldLocks;
}

/**
 * Brings the record of a guest that lives and the locks of its processes together again, to be called while no other
 * lockvisor works on it: finishes what was cut off, closes what nothing tells of, and takes lost locks again. Each step
 * may be done again after it was cut off.
 */
export async function mendGuest(context: MendingContext, guest: GuestUnderRepair): Promise<GuestUnderRepair> {
  const { migration } = guest.record;
  if (migration !== undefined) {
    return {
      ...guest,
      warnings: [...guest.warnings, migrationNotice(migration)],
    };
  }
  let mended = guest;
  for (const step of MENDING) {
    mended = await step(context, mended);
  }
  return mended;
}

/** In this order: what was to go goes first, what is to run on runs last. */
const MENDING = [
  finishLeaving,
  finishChanging,
  finishStopping,
  adoptStrays,
  noteCarriers,
  finishPause,
  regainLocks,
  protectResources,
  finishContinuing,
];

/** A pause that was cut off while the processors were stopped. */
async function finishStopping(
  { store, driver }: MendingContext,
  guest: GuestUnderRepair,
): Promise<GuestUnderRepair> {
  const { pending } = guest.record;
  if (pending !== "pause" && pending !== "pause-release") return guest;
  const record = await finishPausing({ store, driver }, guest.record, pending);
  return repaired(guest, record, "finished the pause of it that was cut off");
}

/** A resume that was cut off after all locks were back. */
async function finishContinuing(
  { store, driver }: MendingContext,
  guest: GuestUnderRepair,
): Promise<GuestUnderRepair> {
  if (guest.record.pending !== "resume") return guest;
  const record = await finishResuming({ store, driver }, guest.record);
  return repaired(guest, record, "finished the resume of it that was cut off");
}

/** The guest's own processes as they are now; the pass at the beginning tells which there are. */
function lookAgain({ driver, seen }: MendingContext, { carriers }: GuestRecord): Holding[] {
  const pids = [...carriers, ...seen.ofGuest(carriers[0]).map(({ process }) => process)].map(({ pid }) =>
    pid
  );
  return new HeldLocks(driver.holdings([...new Set(pids)])).ofGuest(carriers[0]);
}

async function finishLeaving(
  { store, driver }: MendingContext,
  guest: GuestUnderRepair,
): Promise<GuestUnderRepair> {
  const leaving = guest.record.resources.filter((resource) => resource.leaving);
  if (leaving.length === 0) return guest;
  const { record } = await finishRelease({ store, driver }, guest.record);
  return repaired(guest, record, `finished the release of ${named(leaving)} that was cut off`);
}

/** A change of access that was cut off ends in the weaker of both, which can always be had. */
async function finishChanging(
  { store, driver }: MendingContext,
  guest: GuestUnderRepair,
): Promise<GuestUnderRepair> {
  const changing = guest.record.resources.filter((resource) => resource.changing !== undefined);
  if (changing.length === 0) return guest;
  const record = await finishAccess({ store, driver }, guest.record);
  return repaired(guest, record, `finished the change of access to ${named(changing)} that was cut off`);
}

/**
 * Locks in processes of the guest that its record does not speak of: a command was cut off between its locks and its
 * record. What its notes tell of and is locked as a whole goes into the record; the rest is closed.
 */
async function adoptStrays(context: MendingContext, guest: GuestUnderRepair): Promise<GuestUnderRepair> {
  const { store, driver, seen } = context;
  const { record } = guest;
  const known = knownKeys(record);
  if (seen.ofGuest(record.carriers[0]).every((holding) => keysIn(holding).every((key) => known.has(key)))) {
    return guest;
  }
  const own = lookAgain(context, record);
  const strange = [...new Set(own.flatMap(keysIn))].filter((key) => !known.has(key));
  if (strange.length === 0) return guest;
  const noted = driver.notedGuests(strange);
  // What other guests left to this one's process by inheritance is theirs.
  const foreign = new Set(
    noted.filter((each) => each.guest.uuid !== record.uuid && lifeOf(each.process) !== "dead")
      .flatMap(({ resources, leaseKeys }) => [...leaseKeys, ...resources.flatMap(({ keys }) => keys)]),
  );
  const whole = wholeKeys(slotsOf(own));
  const self = noted.find((each) => each.guest.uuid === record.uuid);
  const resources = (self?.resources ?? []).filter(({ type, name, keys }) =>
    !record.resources.some((each) => each.type === type && each.name === name) &&
    keys.some((key) => strange.includes(key)) && keys.every((key) => whole.has(key))
  );
  const added = new Set(resources.flatMap(({ keys }) => keys));
  let mended = guest;
  if (resources.length > 0) {
    const carriers = own.flatMap(({ process, kind, locks }): Carrier[] => {
      const wanted = locks.filter(({ key }) => added.has(key) && strange.includes(key));
      return wanted.length === 0
        ? []
        : [{ ...process, kind: kind === "holder" ? "holder" : "monitor", locks: wanted }];
    });
    failpoint("attach.finishing");
    const updated = store.update(record, (current) => ({
      ...current,
      carriers: [...current.carriers, ...carriers],
      resources: [
        ...current.resources,
        ...resources.map(({ type, name, access, keys }) => ({ type, name, access, keys })),
      ],
      grants: withGrants(current.grants, self?.grants?.filter(({ key }) => added.has(key))),
    }));
    failpoint("attach.finished");
    mended = repaired(guest, updated, `finished the acquire of ${named(resources)} that was cut off`);
  }
  const strays = strange.filter((key) => !added.has(key) && !foreign.has(key));
  return strays.length === 0 ? mended : await closeStrays(context, mended, { own, strays: new Set(strays) });
}

async function closeStrays(
  context: MendingContext,
  guest: GuestUnderRepair,
  { own, strays }: { own: readonly Holding[]; strays: ReadonlySet<string> },
): Promise<GuestUnderRepair> {
  const { driver } = context;
  const closable = own.flatMap((holding): Holding[] => {
    const locks = holding.locks.filter(({ key }) => strays.has(key));
    // A holder is ended as a whole.
    const isWhole = holding.kind !== "holder" || locks.length === holding.locks.length;
    return locks.length === 0 || !isWhole ? [] : [{ ...holding, locks }];
  });
  const isProven = closable.every(({ proof }) => proof !== "open");
  if (isProven && closable.length > 0) await driver.discard?.(runningGuest(guest.record), closable);
  const left = lookAgain(context, guest.record).filter(({ process, locks }) =>
    closable.some((holding) => holding.process.pid === process.pid && holding.kind === "other") &&
    locks.some(({ key }) => strays.has(key))
  );
  if (!isProven || left.length > 0) {
    const pids = [...new Set(left.map(({ process }) => process.pid))].join(", ");
    const warning = `process ${
      pids || guest.record.carriers[0].pid
    } has ${strays.size} keys locked that no record and no note tells of`;
    return { ...guest, warnings: [...guest.warnings, warning] };
  }
  return repaired(guest, guest.record, `closed ${strays.size} keys that a command left when it was cut off`);
}

/** Keys that other processes of the guest hold than its record says: a command was cut off after it had moved them. */
function noteCarriers(context: MendingContext, guest: GuestUnderRepair): Promise<GuestUnderRepair> {
  const { store, driver } = context;
  const { record } = guest;
  const missing = missingKeys(driver, record);
  if (missing.length === 0) return Promise.resolve(guest);
  const own = lookAgain(context, record).flatMap((holding) => {
    const wrong = otherwiseHeld(record, holding);
    return slotsOf([holding]).filter(({ key }) => missing.includes(key) && !wrong.has(key));
  });
  const whole = wholeKeys(own);
  if (whole.size === 0) return Promise.resolve(guest);
  const processes = own.filter(({ key }) => whole.has(key));
  const updated = store.update(record, (current) => {
    const strangers = processes.filter(({ process }) =>
      !current.carriers.some(({ pid }) => pid === process.pid)
    );
    const holders = [...new Map(strangers.map(({ process }) => [process.pid, process])).values()]
      .map((process): Carrier => ({ ...process, kind: "holder", locks: [] }));
    const { carriers } = carriersAfter([...current.carriers, ...holders], {
      lost: whole,
      placed: processes,
      added: [],
    });
    return { ...current, carriers: [carriers[0]!, ...carriers.slice(1)] };
  });
  return Promise.resolve(
    repaired(guest, updated, `found ${whole.size} of its keys in another of its processes`),
  );
}

/** A pause or a resume that was cut off half-way ends with everything given up, as before the resume. */
async function finishPause(context: MendingContext, guest: GuestUnderRepair): Promise<GuestUnderRepair> {
  const { store, driver } = context;
  const { record } = guest;
  if (record.givenUp.length === 0) return guest;
  const givenUp = new Set(record.givenUp.map(({ key }) => key));
  const isHeld = lookAgain(context, record).some(({ proof, locks }) =>
    proof !== "open" && locks.some(({ key }) => givenUp.has(key))
  );
  if (!isHeld) return guest;
  const updated = await giveUpLocks({ store, driver }, record);
  return repaired(guest, updated, "gave up the rest of its locks: a pause or a resume of it was cut off");
}

/** A lock that cannot be taken is lost all the same: that is to be told, and `--on-lost` decides. */
async function regainOrReason(
  regaining: Promise<RegainOutcome>,
  keys: readonly string[],
): Promise<RegainOutcome | Obstacle["why"]> {
  try {
    return await regaining;
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    return { outcome: "failed", key: keys[0]!, reason: error.message };
  }
}

async function regainLocks(
  { store, driver }: MendingContext,
  guest: GuestUnderRepair,
): Promise<GuestUnderRepair> {
  const { record } = guest;
  const evidence = driver.evidence(claimsOf(record)).flat();
  const lost = lostResources(record, evidence);
  if (lost.length === 0 || driver.regain === undefined || lifeOf(record.carriers[0]) !== "alive") {
    return guest;
  }
  const keys = unheldKeys([...wantedKeys(record)], evidence);
  const result = await regainOrReason(driver.regain(runningGuest(record), keys), keys);
  if (result.outcome !== "regained") return { ...guest, obstacle: obstacleOf(record, result) };
  const updated = store.update(record, (current) => ({
    ...current,
    carriers: [result.carriers[0] ?? current.carriers[0], ...result.carriers.slice(1)],
    grants: withGrants(current.grants, result.grants),
  }));
  return repaired(guest, updated, `took the locks on ${named(lost)} again, which nobody had in between`);
}

function missingKeys(driver: Driver, record: GuestRecord): string[] {
  return unheldKeys([...wantedKeys(record)], driver.evidence(claimsOf(record)).flat());
}

function repaired(guest: GuestUnderRepair, record: GuestRecord, repair: string): GuestUnderRepair {
  return { ...guest, record, repairs: [...guest.repairs, repair] };
}

function named(resources: readonly { type: string; name: string }[]): string {
  return resources.map(({ type, name }) => `${type} ${name}`).join(", ");
}
