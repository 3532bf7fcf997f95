import type { Guest, ResolvedResource } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import type { ResourceSpec } from "../identity/resource.ts";
import { requireAbility } from "./abilities.ts";
import { attachGuest } from "./attached_guest.ts";
import type { AttachedContext } from "./attached_record.ts";
import { changeAccess as changeAccessOf } from "./change_access.ts";
import type { GuestRecord } from "./guest_record.ts";
import { adoptProcess, type HotplugResult, plugResources, unplugResources } from "./hotplug_guest.ts";
import type { HotplugReport } from "./hotplug_plan.ts";
import type { GuestCall } from "./manager_state.ts";
import { guestToFind, type Parameters } from "./parameters.ts";
import { formatState, inquireGuest, type LocksWhilePaused, pauseGuest, resumeGuest } from "./pause_guest.ts";
import { resolveForRelease, resolveRegistered } from "./registered_resource.ts";

/*
 * What a manager does for a guest that runs, each call as LockManager tells of it. Read only by who needs it: the start of
 * a guest needs none of it.
 */
export { endGuest } from "./attached_guest.ts";
export { stopGuest } from "./stop_guest.ts";

export async function attach(
  context: AttachedContext,
  parameters: Partial<Parameters>,
): Promise<GuestRecord> {
  return await attachGuest(context, guestToFind(parameters), parameters.name);
}

export async function adoptObject(
  { plugin, context }: Pick<GuestCall, "plugin" | "context">,
  { guest, pid }: { guest: Guest; pid: number | undefined },
  resources: readonly ResolvedResource[],
): Promise<HotplugResult> {
  if (pid === undefined) {
    throw new LockvisorError("usage", `adoptObject: which process? set the parameter "pid"`);
  }
  requireAbility(plugin, "hotplug", `adopt process ${pid}`);
  context.store.prepare(plugin.config.effectiveUid);
  return await adoptProcess(context, { guest, pid }, resources);
}

export async function acquireResources(
  { plugin, context, scope, record, become }: GuestCall,
  specs: readonly ResourceSpec[],
): Promise<HotplugReport> {
  requireAbility(plugin, "hotplug", `lock more for guest "${record.name}"`);
  const resources = specs.map((spec) => resolveRegistered("acquireResource", spec, scope));
  const plugged = await plugResources(context, record, resources);
  become({ phase: "attached", record: plugged.record });
  return plugged.report;
}

export async function releaseResources(
  { plugin, context, scope, record, become }: GuestCall,
  specs: readonly ResourceSpec[],
): Promise<HotplugReport> {
  requireAbility(plugin, "hotplug", `release locks of guest "${record.name}"`);
  const resources = specs.map((spec) => resolveForRelease(spec, scope));
  const unplugged = await unplugResources(context, record, resources);
  become({ phase: "attached", record: unplugged.record });
  return unplugged.report;
}

export async function changeAccess(
  { plugin, context, scope, record, become }: GuestCall,
  specs: readonly ResourceSpec[],
): Promise<HotplugReport> {
  requireAbility(plugin, "hotplug", `change the access of guest "${record.name}"`);
  const resources = specs.map((spec) => resolveRegistered("changeAccess", spec, scope));
  const changed = await changeAccessOf(context, record, resources);
  become({ phase: "attached", record: changed.record });
  return changed.report;
}

export async function pause(
  { plugin, context, record, become }: GuestCall,
  locks: LocksWhilePaused,
): Promise<string> {
  requireAbility(plugin, "pause", `pause guest "${record.name}"`);
  const paused = await pauseGuest(context, record, locks);
  become({ phase: "attached", record: paused });
  return formatState(paused);
}

export async function resume(
  { plugin, context, record, become }: GuestCall,
  { changes, state }: { changes: "refuse" | "accept"; state?: string },
): Promise<void> {
  requireAbility(plugin, "pause", `resume guest "${record.name}"`);
  become({ phase: "attached", record: await resumeGuest(context, record, { changes, state }) });
}

export async function inquire({ plugin, context, record }: GuestCall): Promise<string> {
  requireAbility(plugin, "pause", `tell the state of the locks of guest "${record.name}"`);
  return await inquireGuest(context, record);
}
