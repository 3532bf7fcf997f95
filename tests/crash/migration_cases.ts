import type { MigrationCrash, Step } from "./migration_play.ts";

const CANCEL_SOURCE: Step = ["source", "cancel"];
const CLEAN_SOURCE: Step = ["source", "cleanup"];
const CLEAN_DESTINATION: Step = ["destination", "cleanup"];
const REPEAT_SOURCE: Step = ["source", "again"];
const REPEAT_DESTINATION: Step = ["destination", "again"];

const prepare = { guest: "sleep", stage: "started", ends: "source" } as const;
const killedPrepare = { kind: "command", on: "source", command: "prepare" } as const;

const PREPARE: MigrationCrash[] = [
  { ...prepare, kill: { ...killedPrepare, at: "migrate-prepare.recorded" }, operator: [CANCEL_SOURCE] },
  {
    ...prepare,
    stage: "prepared",
    kill: { ...killedPrepare, at: "migrate-prepare.slot-taken", passage: 2 },
    operator: [REPEAT_SOURCE, CANCEL_SOURCE],
  },
  {
    ...prepare,
    kill: { ...killedPrepare, at: "migrate-prepare.offered", passage: 2 },
    operator: [CANCEL_SOURCE],
  },
  {
    ...prepare,
    kill: { ...killedPrepare, at: "migrate-prepare.noted" },
    operator: [REPEAT_SOURCE, CANCEL_SOURCE],
  },
  {
    ...prepare,
    kill: { ...killedPrepare, at: "migrate-prepare.slot-released", passage: 2 },
    operator: [CANCEL_SOURCE],
  },
  {
    ...prepare,
    kill: { ...killedPrepare, at: "migrate-prepare.slot-released", passage: 4 },
    operator: [REPEAT_SOURCE, CANCEL_SOURCE],
  },
  { ...prepare, kill: { ...killedPrepare, at: "migrate-prepare.done" }, operator: [CANCEL_SOURCE] },
];

const comeIn = { guest: "sleep", stage: "prepared", ends: "source" } as const;
const killedIn = { kind: "command", on: "destination", command: "in" } as const;

const IN: MigrationCrash[] = [
  {
    ...comeIn,
    kill: { ...killedIn, at: "migrate-in.slot-taken" },
    operator: [REPEAT_DESTINATION, ["destination", "cancel"], CANCEL_SOURCE],
  },
  {
    ...comeIn,
    kill: { ...killedIn, at: "migrate-in.key-counted" },
    operator: [["destination", "again", 65], CANCEL_SOURCE],
  },
  { ...comeIn, kill: { ...killedIn, at: "migrate-in.counted" }, operator: [CANCEL_SOURCE] },
  {
    ...comeIn,
    kill: { ...killedIn, at: "migrate-in.marked" },
    operator: [["destination", "again", 65], CANCEL_SOURCE],
  },
  {
    ...comeIn,
    kill: { ...killedIn, at: "migrate-in.noted" },
    operator: [CANCEL_SOURCE, ["destination", "gc"]],
  },
  {
    ...comeIn,
    kill: { ...killedIn, at: "migrate-in.recorded" },
    operator: [CLEAN_DESTINATION, CANCEL_SOURCE],
  },
];

const completeOut = { guest: "qemu", stage: "sent", ends: "destination" } as const;
const killedCompleteOut = { kind: "command", on: "source", command: "complete" } as const;

const COMPLETE_OUT: MigrationCrash[] = [
  {
    ...completeOut,
    kill: { ...killedCompleteOut, at: "migrate-complete.quit" },
    operator: [REPEAT_SOURCE, ["destination", "complete"]],
  },
  {
    ...completeOut,
    kill: { ...killedCompleteOut, at: "migrate-complete.ended" },
    operator: [CLEAN_SOURCE, CLEAN_DESTINATION],
  },
  {
    ...completeOut,
    kill: { ...killedCompleteOut, at: "migrate-leave.note-removed", passage: 2 },
    operator: [["destination", "complete"], REPEAT_SOURCE],
  },
  {
    ...completeOut,
    kill: { ...killedCompleteOut, at: "migrate-complete.left" },
    operator: [CLEAN_SOURCE, ["destination", "complete"]],
  },
];

const completeIn = { guest: "qemu", stage: "source-completed", ends: "destination" } as const;
const killedCompleteIn = { kind: "command", on: "destination", command: "complete" } as const;

const COMPLETE_IN: MigrationCrash[] = [
  {
    ...completeIn,
    kill: { ...killedCompleteIn, at: "migrate-complete.slot-taken", passage: 2 },
    operator: [REPEAT_DESTINATION],
  },
  {
    ...completeIn,
    kill: { ...killedCompleteIn, at: "migrate-complete.taken" },
    operator: [CLEAN_DESTINATION],
  },
  {
    ...completeIn,
    kill: { ...killedCompleteIn, at: "migrate-complete.noted" },
    operator: [REPEAT_DESTINATION],
  },
  {
    ...completeIn,
    kill: { ...killedCompleteIn, at: "migrate-complete.recorded" },
    operator: [CLEAN_DESTINATION],
  },
];

const cancelSending = { guest: "qemu", stage: "sending", ends: "source" } as const;
const cancelled = {
  guest: "sleep",
  stage: "incoming",
  before: "destination-cancelled",
  ends: "source",
} as const;
const killedCancelOut = { kind: "command", on: "source", command: "cancel" } as const;

const CANCEL_OUT: MigrationCrash[] = [
  {
    ...cancelSending,
    kill: { ...killedCancelOut, at: "migrate-cancel.marked" },
    operator: [REPEAT_SOURCE, CLEAN_DESTINATION],
  },
  {
    ...cancelSending,
    kill: { ...killedCancelOut, at: "migrate-cancel.stopped" },
    operator: [REPEAT_SOURCE, CLEAN_DESTINATION],
  },
  {
    ...cancelSending,
    kill: { ...killedCancelOut, at: "migrate-cancel.cancelled" },
    then: { destination: "ended" },
    operator: [CLEAN_DESTINATION, REPEAT_SOURCE],
  },
  {
    ...cancelSending,
    kill: { ...killedCancelOut, at: "migrate-cancel.slot-taken", passage: 2 },
    then: { destination: "ended" },
    operator: [CLEAN_DESTINATION, REPEAT_SOURCE],
  },
  { ...cancelled, kill: { ...killedCancelOut, at: "migrate-cancel.taken" }, operator: [REPEAT_SOURCE] },
  { ...cancelled, kill: { ...killedCancelOut, at: "migrate-cancel.counted" }, operator: [REPEAT_SOURCE] },
  { ...cancelled, kill: { ...killedCancelOut, at: "migrate-cancel.noted" }, operator: [REPEAT_SOURCE] },
  {
    ...cancelSending,
    stage: "prepared",
    kill: { ...killedCancelOut, at: "migrate-cancel.slot-declined", passage: 2, when: "sending-begins" },
    operator: [REPEAT_SOURCE],
  },
  {
    ...cancelSending,
    kill: { ...killedCancelOut, at: "migrate-cancel.recorded" },
    then: { destination: "ended" },
    operator: [REPEAT_SOURCE, CLEAN_DESTINATION],
  },
  {
    ...cancelSending,
    kill: { ...killedCancelOut, at: "migrate-cancel.continued" },
    then: { destination: "ended" },
    operator: [CLEAN_DESTINATION],
  },
];

const cancelIn = { guest: "sleep", stage: "incoming", ends: "source" } as const;
const killedCancelIn = { kind: "command", on: "destination", command: "cancel" } as const;

const CANCEL_IN: MigrationCrash[] = [
  {
    ...cancelIn,
    kill: { ...killedCancelIn, at: "migrate-cancel.ended" },
    operator: [CLEAN_DESTINATION, CANCEL_SOURCE],
  },
  {
    ...cancelIn,
    kill: { ...killedCancelIn, at: "migrate-leave.note-removed", passage: 2 },
    operator: [CANCEL_SOURCE, REPEAT_DESTINATION],
  },
];

const onSource = { guest: "qemu", kill: { kind: "process", on: "source" } } as const;

const SOURCE: MigrationCrash[] = [
  { ...onSource, stage: "prepared", operator: [CLEAN_SOURCE], ends: "nowhere" },
  { ...onSource, stage: "incoming", operator: [CLEAN_DESTINATION, CLEAN_SOURCE], ends: "nowhere" },
  {
    ...onSource,
    stage: "sending",
    then: { destination: "ended" },
    operator: [CLEAN_SOURCE, CLEAN_DESTINATION],
    ends: "nowhere",
  },
  {
    ...onSource,
    stage: "switching",
    then: { destination: "ended" },
    operator: [CLEAN_SOURCE, CLEAN_DESTINATION],
    ends: "nowhere",
  },
  { ...onSource, stage: "sent", operator: [CLEAN_SOURCE, CLEAN_DESTINATION], ends: "destination" },
  {
    ...onSource,
    stage: "destination-waiting",
    operator: [CLEAN_DESTINATION, CLEAN_SOURCE],
    ends: "destination",
  },
];

const onDestination = { guest: "qemu", kill: { kind: "process", on: "destination" } } as const;

const DESTINATION: MigrationCrash[] = [
  { ...onDestination, stage: "incoming", operator: [CLEAN_DESTINATION, CANCEL_SOURCE], ends: "source" },
  {
    ...onDestination,
    stage: "sending",
    then: { source: "running" },
    operator: [CLEAN_DESTINATION, CANCEL_SOURCE],
    ends: "source",
  },
  { ...onDestination, stage: "switching", operator: [CLEAN_DESTINATION, CANCEL_SOURCE], ends: "source" },
  {
    ...onDestination,
    stage: "sent",
    operator: [["source", "cancel", 65], CLEAN_SOURCE, CLEAN_DESTINATION],
    ends: "nowhere",
  },
  {
    ...onDestination,
    stage: "destination-waiting",
    operator: [CLEAN_DESTINATION, CLEAN_SOURCE],
    ends: "nowhere",
  },
  { ...onDestination, stage: "source-completed", operator: [CLEAN_DESTINATION], ends: "nowhere" },
];

const onBoth = { guest: "qemu", kill: { kind: "process", on: "both" }, ends: "nowhere" } as const;

const BOTH: MigrationCrash[] = [
  { ...onBoth, stage: "sending", operator: [CLEAN_SOURCE, CLEAN_DESTINATION] },
  { ...onBoth, stage: "sent", operator: [CLEAN_DESTINATION, CLEAN_SOURCE] },
];

const broken = { guest: "qemu", kill: { kind: "connection", how: "broken" }, ends: "source" } as const;

const CONNECTION: MigrationCrash[] = [
  {
    ...broken,
    stage: "sending",
    then: { source: "running", destination: "ended" },
    operator: [CLEAN_DESTINATION, CANCEL_SOURCE],
  },
  {
    ...broken,
    stage: "switching",
    then: { destination: "ended" },
    operator: [CANCEL_SOURCE, CLEAN_DESTINATION],
  },
  {
    guest: "qemu",
    stage: "sending",
    kill: { kind: "connection", how: "stalled" },
    // It does not run on before the destination is known to have ended.
    operator: [["source", "cancel", 75, "paused"], ["destination", "cancel"], CANCEL_SOURCE],
    ends: "source",
  },
];

/**
 * The table's rows, in its order. The order of keys is by chance, and one of four is the source's alone: only from the second
 * on it is certain that one is meant that both know.
 */
export const MIGRATION_CRASHES: readonly MigrationCrash[] = [
  ...PREPARE,
  ...IN,
  ...COMPLETE_OUT,
  ...COMPLETE_IN,
  ...CANCEL_OUT,
  ...CANCEL_IN,
  ...SOURCE,
  ...DESTINATION,
  ...BOTH,
  ...CONNECTION,
];

/** Those of the rows in which a command is killed, as other tests of crashes have them. */
export const MIGRATION_CASES = MIGRATION_CRASHES.flatMap(({ kill }) =>
  kill.kind === "command" ? [{ at: kill.at }] : []
);
