/** The parts of the command line that the start of a guest does not need; see commands.ts. */
export { adopt } from "./adopt.ts";
export { attach } from "./attach.ts";
export { run as breakLock } from "./break.ts";
export { run as check } from "./check.ts";
export { run as completion } from "./completion.ts";
export { run as doctor } from "./doctor.ts";
export { formatForecasts } from "./forecast_text.ts";
export { run as gc } from "./gc.ts";
export { acquire, release } from "./hotplug.ts";
export { commandHelp, programHelp } from "./help.ts";
export { run as init } from "./init.ts";
export { run as inspect } from "./inspect.ts";
export { pause, resume } from "./pause.ts";
export { run as status } from "./status.ts";
export { stop } from "./stop.ts";
export { run as version } from "./version.ts";
export { acquireWithin } from "./wait.ts";
export { waitForGuest } from "./wait_for_guest.ts";
