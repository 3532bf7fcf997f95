/**
 * One state of a guest that moves between two hosts, as small numbers, so that millions of them fit into memory. The
 * guest has two keys; sets of keys are bit masks.
 */
export interface State {
  /** The keys whose slots the processes of both sides hold: the kernel's view. */
  sourceA: number;
  sourceB: number;
  destinationA: number;
  destinationB: number;
  /** How many slots the contender holds, in the order in which it asks for them; with all it runs. */
  contender: number;
  /** The source's QEMU. */
  source: number;
  /** How its migration stands, as the source sees it. */
  stream: number;
  /** Whether everything that the destination needs to run has been sent. */
  sent: number;
  /** Whether the guest ran when its QEMU stopped it for the final phase: QEMU itself resumes it on failure then. */
  resumes: number;
  /** Whether the guest's user wants it paused; else it must not be left so. */
  pausedByUser: number;
  /** Whether the destination has run: the source's memory does not go with the disk any more. */
  sourceStale: number;
  /** What ties the destination's process to the source. */
  link: number;
  /** The destination's process. */
  destination: number;
  /** Whether that was started with -S, so that it does not run by itself. */
  startsHeld: number;
  sourceRecord: number;
  incomingGuest: number;
  /** The offers beside the two keys. */
  offers: [number, number];
  destinationRecord: number;
  /** Where the command of each side is in its program; 0: none runs. */
  sourceAt: number;
  destinationAt: number;
  runnerAt: number;
  /** Which ticket the destination's `in` was given, until it has arrived. */
  ticket: number;
}

/** `final`: stopped by QEMU for the switchover (finish-migrate). */
export const Source = { dead: 0, running: 1, paused: 2, final: 3, postmigrate: 4 } as const;
/** `ended`: cancelled or failed. `preSwitchover`: the guest is stopped, and QEMU waits to be told to send the rest. */
export const Stream = { none: 0, active: 1, final: 2, completed: 3, ended: 4, preSwitchover: 5 } as const;
/** `stale`: what it gets or got is older than the disk. `broken`: it will get no more. */
export const Link = { none: 0, good: 1, stale: 2, broken: 3 } as const;
/** `starting`: a lockvisor process that has not yet become QEMU. */
export const Destination = { dead: 0, starting: 1, inmigrate: 2, running: 3, paused: 4 } as const;
export const SourceRecord = { running: 0, out: 1, none: 2 } as const;
export const IncomingGuest = { unwatched: 0, held: 1, letGo: 2 } as const;
/** `old`: of a ticket that a later prepare has replaced. */
export const Offer = { none: 0, current: 1, old: 2, taken: 3 } as const;
export const DestinationRecord = { none: 0, incoming: 1, running: 2 } as const;
export const Ticket = { current: 0, old: 1 } as const;

/** A set of both keys. */
export const BOTH = 3;
/** How many slots the contender asks for. */
export const ALL_SLOTS = 4;
/** No command's program may be longer than this. */
export const LONGEST_PROGRAM = 128;

/** A state as one number below 2^53. */
export function encode(state: State): number {
  let code = state.sourceA;
  code = code * 4 + state.sourceB;
  code = code * 4 + state.destinationA;
  code = code * 4 + state.destinationB;
  code = code * 5 + state.contender;
  code = code * 5 + state.source;
  code = code * 6 + state.stream;
  code = code * 2 + state.sent;
  code = code * 2 + state.resumes;
  code = code * 2 + state.pausedByUser;
  code = code * 2 + state.sourceStale;
  code = code * 4 + state.link;
  code = code * 5 + state.destination;
  code = code * 2 + state.startsHeld;
  code = code * 3 + state.sourceRecord;
  code = code * 3 + state.incomingGuest;
  code = code * 4 + state.offers[0];
  code = code * 4 + state.offers[1];
  code = code * 3 + state.destinationRecord;
  code = code * 4 + state.runnerAt;
  code = code * 2 + state.ticket;
  code = code * LONGEST_PROGRAM + state.sourceAt;
  return code * LONGEST_PROGRAM + state.destinationAt;
}

/** The state behind a number from {@linkcode encode}. */
export function decode(code: number): State {
  let rest = code;
  const digit = (base: number): number => {
    const quotient = Math.floor(rest / base);
    const value = rest - quotient * base;
    rest = quotient;
    return value;
  };
  const destinationAt = digit(LONGEST_PROGRAM);
  const sourceAt = digit(LONGEST_PROGRAM);
  const ticket = digit(2);
  const runnerAt = digit(4);
  const destinationRecord = digit(3);
  const secondOffer = digit(4);
  const offers: [number, number] = [digit(4), secondOffer];
  const incomingGuest = digit(3);
  const sourceRecord = digit(3);
  const startsHeld = digit(2);
  const destination = digit(5);
  const link = digit(4);
  const sourceStale = digit(2);
  const pausedByUser = digit(2);
  const resumes = digit(2);
  const sent = digit(2);
  const stream = digit(6);
  const source = digit(5);
  const contender = digit(5);
  const destinationB = digit(4);
  const destinationA = digit(4);
  const sourceB = digit(4);
  return {
    sourceA: rest,
    sourceB,
    destinationA,
    destinationB,
    contender,
    source,
    stream,
    sent,
    resumes,
    pausedByUser,
    sourceStale,
    link,
    destination,
    startsHeld,
    sourceRecord,
    incomingGuest,
    offers,
    destinationRecord,
    sourceAt,
    destinationAt,
    runnerAt,
    ticket,
  };
}

/** A guest with all its locks and nobody beside it. */
export function guestAlone(source: typeof Source.running | typeof Source.paused): State {
  return {
    sourceA: BOTH,
    sourceB: BOTH,
    destinationA: 0,
    destinationB: 0,
    contender: 0,
    source,
    stream: Stream.none,
    sent: 0,
    resumes: 0,
    pausedByUser: source === Source.paused ? 1 : 0,
    sourceStale: 0,
    link: Link.none,
    destination: Destination.dead,
    startsHeld: 0,
    sourceRecord: SourceRecord.running,
    incomingGuest: IncomingGuest.unwatched,
    offers: [Offer.none, Offer.none],
    destinationRecord: DestinationRecord.none,
    sourceAt: 0,
    destinationAt: 0,
    runnerAt: 0,
    ticket: Ticket.current,
  };
}

/** Whether anything of a migration may still change who runs: everything before the stream's end has been read. */
export function canArrive({ destination, link }: State): boolean {
  return destination === Destination.inmigrate && (link === Link.good || link === Link.stale);
}

/** Takes out what nothing depends on any more, so that states which behave alike are one. */
export function settle(state: State): State {
  if (state.source === Source.dead) {
    state.stream = Stream.none;
    state.sourceStale = state.pausedByUser = 0;
  }
  if (state.destination <= Destination.starting) state.link = Link.none;
  if (state.destination === Destination.dead || state.destination >= Destination.running) {
    state.startsHeld = 0;
  }
  if (state.stream !== Stream.final && !canArrive(state)) state.sent = 0;
  if (state.source !== Source.final && state.sent === 0) state.resumes = 0;
  if (state.sourceRecord !== SourceRecord.out) state.incomingGuest = IncomingGuest.unwatched;
  if (state.destination === Destination.dead || state.destination >= Destination.running) {
    state.ticket = Ticket.current;
  }
  return state;
}

/** The source's process ends: the kernel frees its locks, and what it had not sent is lost. */
export function endSource(state: State): void {
  state.source = Source.dead;
  state.sourceA = state.sourceB = 0;
  if (canArrive(state) && state.sent === 0 && isSending(state)) state.link = Link.broken;
}

/** The destination's process ends: the kernel frees its locks, and whoever talks to it is cut off. */
export function endDestination(state: State): void {
  if (state.destination === Destination.starting) state.destinationAt = 0;
  state.destination = Destination.dead;
  state.destinationA = state.destinationB = 0;
  state.runnerAt = 0;
}

/** Whether the source's QEMU has a migration that goes on. */
export function isSending({ stream }: State): boolean {
  return stream === Stream.active || stream === Stream.preSwitchover || stream === Stream.final;
}

/** The source runs from now on: what a destination has from it, or is about to read, is out of date. */
export function runSource(state: State): void {
  state.source = Source.running;
  const holdsCopy = state.destination === Destination.paused || (canArrive(state) && state.sent === 1);
  if (holdsCopy) state.link = Link.stale;
}

/** The destination runs from now on: the source's memory is out of date. */
export function runDestination(state: State): void {
  state.destination = Destination.running;
  if (state.source !== Source.dead) state.sourceStale = 1;
}

/** A state in one line, for a trace. */
export function describe(code: number): string {
  const state = decode(code);
  const name = (names: Record<string, number>, value: number) =>
    Object.keys(names).find((each) => names[each] === value)!;
  const keys = (mask: number) => ["-", "1", "2", "12"][mask]!;
  return [
    `source ${name(Source, state.source)} a:${keys(state.sourceA)} b:${keys(state.sourceB)}`,
    `stream ${name(Stream, state.stream)}${state.sent ? "+sent" : ""}${state.resumes ? "+resumes" : ""}`,
    `record ${name(SourceRecord, state.sourceRecord)}/${name(IncomingGuest, state.incomingGuest)}`,
    `offers ${state.offers.map((offer) => name(Offer, offer)).join(",")}`,
    `destination ${name(Destination, state.destination)}${state.startsHeld ? " -S" : ""} a:${
      keys(state.destinationA)
    } b:${keys(state.destinationB)} link ${name(Link, state.link)}`,
    `record ${name(DestinationRecord, state.destinationRecord)}`,
    `contender ${state.contender}/${ALL_SLOTS}`,
    ...state.sourceStale ? ["the destination has run"] : [],
  ].join(" | ");
}
