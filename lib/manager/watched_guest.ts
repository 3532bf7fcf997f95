import type { WatchedGuest } from "../driver/contract.ts";
import type { GuestRecord } from "./guest_record.ts";
import { wantedKeys } from "./held_locks.ts";
import { claimsOf, modesOf } from "./lost_locks.ts";

/** A guest as its driver watches its locks, by its record. */
export function watchedGuest(record: GuestRecord): WatchedGuest {
  const modes = modesOf(record);
  const keys = [...wantedKeys(record)].map((key) => ({ key, mode: modes.get(key) ?? null }));
  return { uuid: record.uuid, keys, claims: claimsOf(record) };
}
