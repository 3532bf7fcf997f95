import type { ResolvedResource } from "../driver/contract.ts";
import { type AccessChange, planAccess } from "./access_plan.ts";
import { applyChanges } from "./apply_access.ts";
import { type AttachedContext, currentRecord, refuseLostLocks } from "./attached_record.ts";
import { finishCutOff } from "./finish_cut_off.ts";
import type { GuestRecord } from "./guest_record.ts";
import { type HotplugResult, orAfterAttach } from "./hotplug_guest.ts";
import { type HotplugStep, refuseGivenUp } from "./hotplug_plan.ts";

/**
 * Gives a guest that runs another access to resources that it has: all or none. It has their locks all the time, in the
 * stronger or in the weaker mode.
 * @throws {LockvisorError} `locked` with the holders' names where it gets stronger, `data` for what the guest does not
 * have, has lost or has given up, `unavailable` for a driver that cannot
 */
export function changeAccess(
  context: AttachedContext,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugResult> {
  return orAfterAttach(context, guest.uuid, () => changeOnce(context, guest, resources));
}

async function changeOnce(
  context: AttachedContext,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugResult> {
  const { store, driver } = context;
  return await store.withGuest(guest.uuid, async () => {
    const record = await finishCutOff(context, currentRecord(store, guest));
    const steps = planAccess(record, resources);
    const changes = steps.flatMap((step) => step.kind === "change" ? [step.change] : []);
    const recorded = steps.map((step) => step.kind === "change" ? step.change.recorded : step.recorded);
    refuseGivenUp(record, changes.map(({ resource }) => resource));
    refuseLostLocks(driver, record, recorded.filter(({ keys }) => keys.length > 0));
    return {
      record: await applyChanges(context, record, unique(changes)),
      report: {
        done: steps.map((step): HotplugStep =>
          step.kind === "change"
            ? { kind: "changed", resource: step.change.resource }
            : { kind: "held", resource: step.resource }
        ),
        warnings: [],
      },
    };
  });
}

function unique(changes: readonly AccessChange[]): AccessChange[] {
  return [...new Map(changes.map((each) => [each.recorded, each])).values()];
}
