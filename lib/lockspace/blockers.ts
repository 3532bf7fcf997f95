import type { Holder, Refusal } from "../driver/contract.ts";
import { kernelFlocks } from "../process/descriptors.ts";
import { blockersOf, holdersOfKey } from "./key_holders.ts";
import type { PlannedKey } from "./key_plan.ts";
import type { Lockspace } from "./lockspace.ts";
import { observeKey, type SlotEvidence } from "./slot_evidence.ts";

/** The host that asks, as notes name it. */
export interface AskingHost {
  id: string;
  name: string;
}

/** Who stands in the way of a planned key, by its notes and by what was seen of it. */
export function blockersAt(
  lockspace: Lockspace,
  { key, mode }: PlannedKey,
  { evidence, host }: { evidence: SlotEvidence; host: AskingHost },
): Holder[] {
  return blockersOf(holdersOfKey(lockspace, key, evidence, host).holders, mode);
}

/** Why a key could not be had just now. */
export function refusalAt(lockspace: Lockspace, planned: PlannedKey, host: AskingHost): Refusal {
  const seen = observeKey(lockspace, planned.key, kernelFlocks());
  // Between the refusal and this look the holder may have gone, or its lock may not be shown: notes still tell.
  const evidence: SlotEvidence = seen.state === "free" ? { state: "exclusive", pids: [] } : seen;
  const { type, name, access } = planned.resource;
  return { resource: { type, name, access }, holders: blockersAt(lockspace, planned, { evidence, host }) };
}
