import { casesOf } from "./crash.ts";
import {
  acquireInHolder,
  acquireInQemu,
  adopt,
  releaseFromGuest,
  releaseFromHolder,
  releaseInQemu,
} from "./hotplug_cases.ts";
import { pause, pauseAndRelease, resume } from "./pause_cases.ts";

/** Whoever repeats the command at once, without `attach`, gets what he asked for. */
export const REPEAT_CASES = [
  ...casesOf(acquireInQemu, "monitor.sent", ["monitor.sent", 3], "acquire.carried"),
  ...casesOf(acquireInHolder, "acquire.carried"),
  ...casesOf(adopt, "holder.started", "adopt.carried"),
  ...casesOf(releaseInQemu, "release.slot-released", ["release.closed", 2], "release.unnoted"),
  ...casesOf(releaseFromHolder, "release.slot-released", ["release.closed", 2]),
  ...casesOf(releaseFromGuest, "release.key-released"),
  ...casesOf(pause, "pause.stopped"),
  ...casesOf(pauseAndRelease, "pause.remembered", ["pause.slot-released", 3], "pause.note-removed"),
  ...casesOf(resume, "resume.slot-taken", "resume.taken", "resume.recorded", "resume.continued"),
];
