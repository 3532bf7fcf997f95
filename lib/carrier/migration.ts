/**
 * What is done to a guest that moves to another host. One module, read only by the commands of a migration.
 */
export { leaveKeys, lookAtOtherSide, takeOverSlots } from "./migration_destination.ts";
export { type LeavingGuest, makeTicket, offerSlots, withdrawSlots } from "./migration_source.ts";
export { takeIncoming } from "../lockspace/incoming_grant.ts";
