import type { Driver, Forecast, Holder } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import type { ResolvedResource } from "../identity/resource.ts";
import { lifeOf } from "../process/process_identity.ts";
import { runningGuest } from "./attached_record.ts";
import { type GuestRecord, type RecordedResource, withGrants } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import type { GuestUnderRepair } from "./mend_guest.ts";
import { unprotectedResources, unprotectedText } from "./unprotected.ts";

type Unprotected = ReturnType<typeof unprotectedResources>[number];

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
        warnings.push(unprotectedText({ ...resource, unprotected: { holder: outcome.holder } }));
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
  recorded: Unprotected,
): Promise<
  { record: GuestRecord } & ({ outcome: "protected" } | { outcome: "refused"; holder: Holder | null })
> {
  const wanted = resolved(recorded);
  const forecast = forecastOf(driver, wanted);
  // Who has no name may be gone in an instant, as a process is that was told to end just now: the driver is patient then.
  const isFinal = forecast?.verdict === "refused" && forecast.holders.some(({ name }) => name !== null);
  const result = isFinal
    ? { outcome: "refused" as const, holders: forecast.holders }
    : await plug(driver, record, wanted);
  if (result.outcome === "refused") {
    const holder = result.holders[0] ?? null;
    if (isSameHolder(holder, recorded.unprotected.holder)) return { outcome: "refused", record, holder };
    const unprotected = { ...recorded.unprotected, holder };
    return {
      outcome: "refused",
      holder,
      record: changeResource(store, record, recorded, (current) => ({ ...current, unprotected })),
    };
  }
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

/**
 * Whether a look at a guest's unprotected resources would change something: one of them is free, or somebody else has it.
 */
export function mayProtect(driver: Driver, record: GuestRecord): boolean {
  return unprotectedResources(record).some((recorded) => {
    const forecast = forecastOf(driver, resolved(recorded));
    return forecast?.verdict !== "refused" ||
      !isSameHolder(forecast.holders[0] ?? null, recorded.unprotected.holder);
  });
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
function resolved({ type, name, access, unprotected: { identities } }: Unprotected): ResolvedResource {
  // Where the disk lies was looked at when the guest got it.
  return { type, name, access, identities: [...identities], onNetworkStorage: false };
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
