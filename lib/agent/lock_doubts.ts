import type { GuestRecord } from "../manager/guest_record.ts";

/** Tells which guests' locks have to be looked at exactly. */
export interface LockDoubts {
  /** Those of these guests whose locks nobody vouches for. */
  of(records: readonly GuestRecord[]): readonly GuestRecord[];
  /** An exact look has found all locks of a guest. */
  settle(record: GuestRecord): void;
}

/** Vouches for nobody. */
export const DOUBT_ALL: LockDoubts = { of: (records) => records, settle: () => {} };
