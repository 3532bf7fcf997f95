/**
 * The points at which a test may have the program killed, each named after the command or file that it belongs to and
 * what has been done when it is reached. For a point in a loop the test says at which passage.
 */
export const FAILPOINTS = [
  // Taking locks: `run`, `acquire`, `adopt`.
  "slots.taken",
  "grant.locked",
  "grant.key-counted",
  "grant.counted",
  "notes.first-written",
  "grant.noted",
  // `run`
  "run.recorded",
  "run.inheritable",
  // Files of ours.
  "write.written",
  "write.ready",
  "record.claimed",
  "record.leaving",
  // `acquire` and `adopt`: moving the locks to the guest.
  "carry.begun",
  "monitor.sent",
  "monitor.all-sent",
  "holder.started",
  "carry.done",
  "acquire.carried",
  "acquire.recorded",
  "adopt.carried",
  // `release`
  "release.begun",
  "release.slot-released",
  "release.key-released",
  "release.carrier-released",
  "release.closed",
  "release.unlocked",
  "release.note-removed",
  "release.unnoted",
  "release.recorded",
  // `disk plug`
  "disk-plug.locked",
  "disk-plug.node-added",
  "disk-plug.device-added",
  // `disk unplug`
  "disk-unplug.requested",
  "disk-unplug.device-deleted",
  "disk-unplug.node-deleted",
  // `pause`
  "pause.stopped",
  "pause.remembered",
  "pause.slot-released",
  "pause.released",
  "pause.note-removed",
  "pause.unnoted",
  // `resume`
  "resume.slot-taken",
  "resume.taken",
  "resume.refusing",
  "resume.noted",
  "resume.counted",
  "resume.recorded",
  "resume.continued",
  // `stop`
  "stop.asked",
  "stop.ended",
  "stop.proved",
  // `attach`
  "attach.following",
  "attach.followed",
  "attach.restoring",
  "attach.restored",
  "attach.finishing",
  "attach.finished",
  "attach.gone",
  "attach.lost",
  "attach.lost-noted",
  // `migrate prepare`
  "migrate-prepare.recorded",
  "migrate-prepare.slot-taken",
  "migrate-prepare.offered",
  "migrate-prepare.noted",
  "migrate-prepare.slot-released",
  "migrate-prepare.done",
  // `migrate in`
  "migrate-in.slot-taken",
  "migrate-in.key-counted",
  "migrate-in.counted",
  "migrate-in.marked",
  "migrate-in.noted",
  "migrate-in.recorded",
  // `migrate complete`
  "migrate-complete.slot-taken",
  "migrate-complete.taken",
  "migrate-complete.noted",
  "migrate-complete.recorded",
  "migrate-complete.quit",
  "migrate-complete.ended",
  "migrate-leave.note-removed",
  "migrate-complete.left",
  // `migrate cancel`
  "migrate-cancel.ended",
  "migrate-cancel.marked",
  "migrate-cancel.stopped",
  "migrate-cancel.cancelled",
  "migrate-cancel.slot-taken",
  "migrate-cancel.taken",
  "migrate-cancel.slot-declined",
  "migrate-cancel.counted",
  "migrate-cancel.noted",
  "migrate-cancel.recorded",
  "migrate-cancel.continued",
  // `migrate run`
  "migrate-run.greeted",
  "migrate-run.prepared",
  "migrate-run.receiver-ready",
  "migrate-run.migrating",
  "migrate-run.completed",
  "migrate-run.let-go",
  "migrate-run.going",
  "migrate-run.running",
  "migrate-run.source-completed",
  "migrate-run.cancelling",
  "migrate-run.receiver-cancelled",
  // `migrate receive`
  "migrate-receive.started",
  "migrate-receive.listening",
  "migrate-receive.arrived",
  "migrate-receive.going",
  "migrate-receive.running",
  "migrate-receive.completed",
  // `break`
  "break.audited",
  "break.counted",
  "break.file-made",
  "break.file-replaced",
  "break.replaced",
  // `gc`
  "gc.taken",
  "gc.unnoted",
  "gc.slot-removed",
] as const;

/** A point in {@linkcode FAILPOINTS}: a name that is not listed does not compile. */
export type FailpointName = typeof FAILPOINTS[number];
