import {
  ALL_SLOTS,
  BOTH,
  decode,
  Destination,
  DestinationRecord,
  IncomingGuest,
  Link,
  Offer,
  Source,
  SourceRecord,
  type State,
  Stream,
  Ticket,
} from "./migration_state.ts";
import type { Hope } from "./state_search.ts";

/** What must be within reach from every state. */
export const HOPES: readonly Hope[] = [
  {
    from: () => true,
    good: (code) => isAtRest(decode(code)),
    otherwise: "no state of rest can be reached any more, however often the commands are repeated",
  },
  {
    from: (code) => canBeSaved(decode(code)),
    good: (code) => isOwned(decode(code)),
    otherwise: "the guest is lost, though its source is sure to be good",
  },
];

/** What must never be. */
export function wrongIn(state: State): string | undefined {
  const { source, destination, link } = state;
  const contenderRuns = state.contender === ALL_SLOTS;
  const writers = [
    ...source === Source.running ? ["the source"] : [],
    ...destination === Destination.running ? ["the destination"] : [],
    ...contenderRuns ? ["the contender"] : [],
  ];
  if (writers.length > 1) return `two writers: ${writers.join(" and ")}`;
  if (source !== Source.dead && (state.sourceA | state.sourceB) !== BOTH) {
    return "the source's QEMU lives and holds no slot of one of its keys";
  }
  if (destination >= Destination.inmigrate && (state.destinationA | state.destinationB) !== BOTH) {
    return "the destination's QEMU lives and holds no slot of one of its keys";
  }
  if (contenderRuns && (source !== Source.dead || destination >= Destination.inmigrate)) {
    return "the contender has all locks of a guest that lives";
  }
  if (source === Source.running && state.sourceStale === 1) {
    return "the source runs on after its destination has run";
  }
  if (destination === Destination.running && link === Link.stale) {
    return "the destination runs with memory that is older than the disk";
  }
  if (source !== Source.dead && destination === Destination.inmigrate && state.ticket === Ticket.old) {
    return "a destination has come in by a ticket that was replaced";
  }
  return undefined;
}

/** One owner with both slots of all keys, or none, and nothing left of the migration. */
export function isAtRest(state: State): boolean {
  return nothingIsLeft(state) &&
    (sourceOwns(state) || destinationOwns(state) || (noSource(state) && noDestination(state)));
}

function isOwned(state: State): boolean {
  return nothingIsLeft(state) && (sourceOwns(state) || destinationOwns(state));
}

function nothingIsLeft({ sourceAt, destinationAt, runnerAt, offers }: State): boolean {
  return sourceAt === 0 && destinationAt === 0 && runnerAt === 0 &&
    offers.every((offer) => offer === Offer.none);
}

function noSource({ source, sourceRecord }: State): boolean {
  return source === Source.dead && sourceRecord === SourceRecord.none;
}

function noDestination({ destination, destinationRecord }: State): boolean {
  return destination === Destination.dead && destinationRecord === DestinationRecord.none;
}

/** A guest that its user has not paused must run again. */
function sourceOwns(state: State): boolean {
  const asWanted = state.pausedByUser === 1
    ? state.source === Source.paused || state.source === Source.postmigrate
    : state.source === Source.running;
  return noDestination(state) && asWanted && state.sourceRecord === SourceRecord.running &&
    (state.sourceA & state.sourceB) === BOTH;
}

function destinationOwns(state: State): boolean {
  return noSource(state) &&
    (state.destination === Destination.running || state.destination === Destination.paused) &&
    state.destinationRecord === DestinationRecord.running &&
    (state.destinationA & state.destinationB) === BOTH;
}

/**
 * A source that lives, and of which it is known that its destination has not run. While a command works on one that has
 * sent everything, that may have decided to end it for a destination that dies at the same time.
 */
function canBeSaved({ source, sourceStale, stream, sent, incomingGuest, sourceAt }: State): boolean {
  if (source === Source.dead || sourceStale === 1) return false;
  if (stream === Stream.final) return sent === 0;
  return stream !== Stream.completed || (incomingGuest === IncomingGuest.held && sourceAt === 0);
}
