import type { Forecast, Holder, Inspection, ResolvedResource } from "../driver/contract.ts";
import { type FlockEntry, kernelFlocks } from "../process/descriptors.ts";
import { type AskingHost, blockersAt } from "./blockers.ts";
import { holdersOfKey } from "./key_holders.ts";
import { planKeys } from "./key_plan.ts";
import { readKeyState } from "./key_state.ts";
import type { Lockspace } from "./lockspace.ts";
import { observeKey } from "./slot_evidence.ts";

/** Whether a resource is locked, how often it was granted, and who has it. Touches nothing. */
export function inspectResource(
  lockspace: Lockspace,
  resource: ResolvedResource,
  host: AskingHost,
): Inspection {
  const flocks = kernelFlocks();
  const holders = new Map<string, Holder>();
  const warnings = new Set<string>();
  let locked = false;
  let generation: number | null = null;
  for (const { key, text, scope } of resource.identities) {
    const state = readKeyState(lockspace, key, text);
    if (state !== undefined && scope === "whole") generation = Math.max(generation ?? 0, state.generation);
    const evidence = observeKey(lockspace, key, flocks);
    if (evidence.state === "free") continue;
    // A larger disk that contains this one is held by the users of its other parts too; only its owner counts.
    if (scope === "containing" && evidence.state === "shared") continue;
    locked = true;
    const found = holdersOfKey(lockspace, key, evidence, host);
    for (const holder of found.holders) holders.set(`${holder.uuid} ${holder.pid} ${holder.host}`, holder);
    for (const warning of found.damaged) warnings.add(warning);
  }
  return { locked, generation, holders: [...holders.values()], warnings: [...warnings] };
}

/**
 * What a start with these resources would meet now. Takes nothing.
 * @param isLocked whether a lock is taken on a resource at all
 * @throws {LockvisorError} `data` as `planKeys`
 */
export function forecastResources(
  lockspace: Lockspace,
  resources: readonly ResolvedResource[],
  { isLocked, host }: { isLocked: (resource: ResolvedResource) => boolean; host: AskingHost },
): Forecast[] {
  planKeys(resources.filter(isLocked)); // one guest may not have them in two ways
  const flocks = kernelFlocks();
  return resources.map((resource) =>
    isLocked(resource)
      ? forecast(lockspace, resource, { flocks, host })
      : { resource, verdict: "skipped", holders: [] }
  );
}

function forecast(
  lockspace: Lockspace,
  resource: ResolvedResource,
  { flocks, host }: { flocks: readonly FlockEntry[]; host: AskingHost },
): Forecast {
  for (const planned of planKeys([resource])) {
    const evidence = observeKey(lockspace, planned.key, flocks);
    if (evidence.state === "free") continue;
    if (evidence.state === "shared" && planned.mode === "shared") continue;
    return { resource, verdict: "refused", holders: blockersAt(lockspace, planned, { evidence, host }) };
  }
  return { resource, verdict: "free", holders: [] };
}
