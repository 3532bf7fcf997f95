import type { FailpointName } from "../../lib/failpoint_names.ts";

/** Where the guest is after everything that could be done was done. */
export type End = "stays" | "moves" | "either";

interface RunCrash {
  at: FailpointName;
  end: End;
  /** QEMU must still be sending then: so little is sent a second that it cannot have come to its end. */
  bandwidth?: string;
}

/** Where the driver is killed. What it has told by then its receiver carries on with alone. */
export const DRIVER_CASES: RunCrash[] = [
  { at: "migrate-run.greeted", end: "stays" },
  { at: "migrate-run.prepared", end: "stays" },
  { at: "migrate-run.receiver-ready", end: "stays" },
  { at: "migrate-run.migrating", end: "stays", bandwidth: "60K" },
  { at: "migrate-run.completed", end: "moves" },
  { at: "migrate-run.let-go", end: "moves" },
  { at: "migrate-run.going", end: "moves" },
  { at: "migrate-run.running", end: "moves" },
  { at: "migrate-run.source-completed", end: "moves" },
];

/** Where a driver is killed that was told to give up. */
export const BACK_CASES: RunCrash[] = [
  { at: "migrate-run.cancelling", end: "stays" },
  { at: "migrate-run.receiver-cancelled", end: "stays" },
];

/** Where the receiver is killed. Its driver lives, and brings the migration to an end, or says how that is to be done. */
export const RECEIVER_CASES: RunCrash[] = [
  { at: "migrate-receive.started", end: "stays" },
  { at: "migrate-receive.listening", end: "stays" },
  { at: "migrate-receive.arrived", end: "either" },
  { at: "migrate-receive.going", end: "moves" },
  { at: "migrate-receive.running", end: "moves" },
  { at: "migrate-receive.completed", end: "moves" },
];
