/**
 * What is done to guests that run. One module, read only by the commands that need it: the start of a guest needs
 * none of it, and each further file of the program would cost it a load.
 */
export { changeModes } from "./change_access.ts";
export { discardStrays } from "./discard.ts";
export { LockspaceWatch } from "../lockspace/lockspace_watch.ts";
export { startHolder } from "./holder.ts";
export { carryInMonitor, closeLeftInMonitor } from "./monitor.ts";
export { giveUpKeys, keysHeld, requireReachOfKeys } from "./pause.ts";
export { regainKeys } from "./regain.ts";
export { takeBackKeys } from "./take_back.ts";
export { unplugKeys } from "./unplug.ts";
