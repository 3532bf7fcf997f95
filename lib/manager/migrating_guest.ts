/**
 * What a manager does for a guest that moves to another host. One module, read only by who needs it.
 */
export { attachIncoming, resolveForTicket } from "./incoming_guest.ts";
export { type ArrivalOutcome, cancelIn, completeIn, takeForIncoming } from "./migrate_in.ts";
export { cancelOut } from "./cancel_out.ts";
export { completeOut, type Destination, noteIncomingGuest, prepareGuest } from "./migrate_out.ts";
