import type { Driver, Forecast, Holder } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import type { ResolvedResource } from "../identity/resource.ts";
import { lifeOf } from "../process/process_identity.ts";
import { applyChanges } from "./apply_access.ts";
import { runningGuest } from "./attached_record.ts";
import type { AccessChange } from "./access_plan.ts";
import { type GuestRecord, type RecordedResource, withGrants } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import type { GuestUnderRepair } from "./mend_guest.ts";
import { unprotectedResources, unprotectedText, type WithoutLock } from "./unprotected.ts";

/**
 * Takes the locks that a guest does without, as soon as nobody else has them, each resource for itself. For what
 * somebody still has the record tells by whom.
 */
export async function protectResources(
  { store, driver }: { store: GuestStore; driver: Driver },
  guest: GuestUnderRepair,
): Promise<GuestUnderRepair> {
  let { record } = guest;
  const repairs = [...guest.repairs];
  const warnings = [...guest.warnings];
  const unprotected = unprotectedResources(record);
  // What a pause has given up comes first: a resume takes it back, and may be refused.
  if (unprotected.length === 0 || record.givenUp.length > 0 || lifeOf(record.carriers[0]) !== "alive") {
    return guest;
  }
  for (const resource of unprotected) {
    try {
      const outcome = await protect({ store, driver }, record, resource);
      record = outcome.record;
      if (outcome.outcome === "protected") {
        repairs.push(`took the lock on ${resource.type} ${resource.name}, which it did without until now`);
      } else {
        const unprotected = { ...resource.unprotected, holder: outcome.holder };
        warnings.push(unprotectedText({ ...resource, unprotected }));
      }
    } catch (error) {
      if (!(error instanceof LockvisorError)) throw error;
      warnings.push(`the lock on ${resource.type} ${resource.name} cannot be taken: ${error.message}`);
    }
  }
  return { ...guest, record, repairs, warnings };
}

async function protect(
  { store, driver }: { store: GuestStore; driver: Driver },
  record: GuestRecord,
  recorded: WithoutLock,
): Promise<
  { record: GuestRecord } & ({ outcome: "protected" } | { outcome: "refused"; holder: Holder | null })
> {
  const wanted = resolved(recorded);
  const holders = holdersNow(driver, record, recorded);
  // Who has no name may be gone in an instant, as a process is that was told to end just now: the driver is patient then.
  const isFinal = holders?.some(({ name }) => name !== null);
  const result = isFinal
    ? { outcome: "refused" as const, holders: holders ?? [] }
    : recorded.unprotected.access === undefined
    ? await plug(driver, record, wanted)
    : await strengthen({ store, driver }, record, { resource: wanted, recorded });
  if (result.outcome === "refused") {
    const holder = result.holders[0] ?? null;
    if (isSameHolder(holder, recorded.unprotected.holder)) return { outcome: "refused", record, holder };
    return {
      outcome: "refused",
      holder,
      record: changeResource(store, record, recorded, ({ unprotected, written, ...current }) => ({
        ...current,
        ...(unprotected === undefined ? {} : { unprotected: { ...unprotected, holder } }),
        ...(written === undefined ? {} : { written: { ...written, holder } }),
      })),
    };
  }
  if (result.outcome === "changed") return { outcome: "protected", record: result.record };
  const { carrier, grants } = result;
  const updated = store.update(record, (current) => ({
    ...current,
    carriers: carrier.locks.length === 0 ? current.carriers : [...current.carriers, carrier],
    grants: withGrants(current.grants, grants),
    resources: current.resources.map((one) => {
      if (!isSame(one, recorded)) return one;
      const { unprotected: _, ...rest } = one;
      return { ...rest, keys: driver.keysOf(wanted) };
    }),
  }));
  return { outcome: "protected", record: updated };
}

async function plug(driver: Driver, record: GuestRecord, wanted: ResolvedResource) {
  const result = await driver.plug(runningGuest(record), [wanted]);
  return result.outcome === "granted"
    ? result
    : { outcome: "refused" as const, holders: result.refusal.holders };
}

/** Gives the guest the access with which it writes already. */
async function strengthen(
  context: { store: GuestStore; driver: Driver },
  record: GuestRecord,
  change: AccessChange,
) {
  try {
    return { outcome: "changed" as const, record: await applyChanges(context, record, [change]) };
  } catch (error) {
    if (!(error instanceof LockvisorError) || error.code !== "locked") throw error;
    const { holders = [] } = error.details as { holders?: Holder[] };
    return { outcome: "refused" as const, holders };
  }
}

/**
 * Whether a look at a guest's unprotected resources would change something: one of them is free, or somebody else has it.
 */
export function mayProtect(driver: Driver, record: GuestRecord): boolean {
  return unprotectedResources(record).some((recorded) => {
    const holders = holdersNow(driver, record, recorded);
    return holders === undefined || !isSameHolder(holders[0] ?? null, recorded.unprotected.holder);
  });
}

/** Who stands in the way; undefined when nobody seems to. What a guest reads under lock it has itself. */
function holdersNow(driver: Driver, { uuid }: GuestRecord, recorded: WithoutLock): Holder[] | undefined {
  const forecast = forecastOf(driver, resolved(recorded));
  if (forecast?.verdict !== "refused") return undefined;
  if (recorded.unprotected.access === undefined) return [...forecast.holders];
  const others = forecast.holders.filter((holder) => holder.uuid !== uuid);
  return others.length === 0 ? undefined : others;
}

/** Undefined for a driver that cannot tell. */
function forecastOf(driver: Driver, resource: ResolvedResource): Forecast | undefined {
  try {
    return driver.forecast(undefined, [resource])[0];
  } catch (error) {
    if (error instanceof LockvisorError) return undefined;
    throw error;
  }
}

/** What the guest has open: it was found out when it got the resource, and its name may mean another file by now. */
function resolved({ type, name, access, unprotected }: WithoutLock): ResolvedResource {
  const { identities, access: needed = access } = unprotected;
  // Where the disk lies was looked at when the guest got it.
  return { type, name, access: needed, identities: [...identities], onNetworkStorage: false };
}

function changeResource(
  store: GuestStore,
  record: GuestRecord,
  changed: RecordedResource,
  change: (current: RecordedResource) => RecordedResource,
): GuestRecord {
  return store.update(record, (current) => ({
    ...current,
    resources: current.resources.map((one) => isSame(one, changed) ? change(one) : one),
  }));
}

function isSame(one: RecordedResource, other: RecordedResource): boolean {
  return one.type === other.type && one.name === other.name;
}

function isSameHolder(one: Holder | null, other: Holder | null): boolean {
  return one?.uuid === other?.uuid && one?.pid === other?.pid && one?.host === other?.host;
}
