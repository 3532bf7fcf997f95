import type { Driver } from "../driver/contract.ts";
import { finishAccess } from "./finish_access.ts";
import { finishRelease } from "./finish_release.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";

/**
 * Finishes releases and changes of access of a guest that were cut off: what its record says and what its processes hold
 * are one again, before anything else is done to its locks.
 */
export async function finishCutOff(
  context: { store: GuestStore; driver: Driver },
  record: GuestRecord,
): Promise<GuestRecord> {
  const released = await finishRelease(context, record);
  return await finishAccess(context, released.record);
}
