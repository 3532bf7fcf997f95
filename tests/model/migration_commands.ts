import type { LockMode } from "../../lib/access.ts";
import type { Driver, Instruction, Program } from "./migration_programs.ts";
import {
  ALL_SLOTS,
  Destination,
  DestinationRecord,
  endDestination,
  endSource,
  IncomingGuest,
  isSending,
  Link,
  Offer,
  runDestination,
  runSource,
  Source,
  SourceRecord,
  type State,
  Stream,
  Ticket,
} from "./migration_state.ts";

/** The modes in which the guest and the contender want the two keys. */
export interface Modes {
  guest: readonly [LockMode, LockMode];
  contender: readonly [LockMode, LockMode];
}

/** What the commands meet. */
export interface Circumstances {
  modes: Modes;
  driver: Driver;
  /** What QEMU calls a guest that was paused when a migration failed in its final phase: `postmigrate` before 8.2. */
  failedWhilePaused: "paused" | "postmigrate";
}

/** A side of the migration; `runner` is `migrate run` on the source's host, once it lets the destination run. */
export type Side = "source" | "destination" | "runner";

/** The programs of one side as one list; place 0 stands for no command. */
export interface Compiled {
  side: Side;
  places: readonly Place[];
  /** The first places of the commands. */
  starts: readonly number[];
  /** The places that were carried out at least once. */
  performed: Set<number>;
}

interface Place {
  command: string;
  instruction: Instruction;
  /** 0 after the last. */
  next: number;
  /** Where the labels of its program are. */
  labels: ReadonlyMap<string, number>;
}

/** What no rule reads: a crash after it is like a crash before it. */
const INERT = new Set(["label", "open", "count", "write-note", "remove-note"]);

/** Puts programs into one list, without what is inert. */
export function compile(side: Side, programs: readonly Program[]): Compiled {
  const places: Place[] = [];
  const starts: number[] = [];
  for (const { command, instructions } of programs) {
    const labels = new Map<string, number>();
    const first = places.length + 1;
    starts.push(first);
    for (const instruction of instructions) {
      if (instruction.step === "label") labels.set(instruction.name, places.length + 1);
      if (INERT.has(instruction.step)) continue;
      places.push({ command, instruction, next: places.length + 2, labels });
    }
    places.at(-1)!.next = 0;
  }
  return { side, places, starts, performed: new Set() };
}

/** The place that a number means. */
export function placeAt({ places }: Compiled, at: number): Place {
  return places[at - 1]!;
}

/** How a side goes on from a place: to another place, to none, or not yet. */
export type Progress = { text: string; goesOn: number | "waits" };

/** Does the instruction at a place to a state. */
export function perform(compiled: Compiled, at: number, state: State, scene: Circumstances): Progress {
  const { command, instruction, next, labels } = placeAt(compiled, at);
  const { side, performed } = compiled;
  const done = (text: string): Progress => {
    performed.add(at);
    return { text: `${side}: ${command}: ${text}`, goesOn: next };
  };
  const refused = (text: string): Progress => {
    if (side === "destination" && state.destination === Destination.starting) endDestination(state);
    return { text: `${side}: ${command}: ${text}, and gives up`, goesOn: 0 };
  };
  switch (instruction.step) {
    case "look": {
      const verdict = instruction.judge(state);
      if (verdict === "go on") return done(instruction.text);
      if (verdict === "wait") return { text: `${side}: ${command}: ${instruction.text}`, goesOn: "waits" };
      if (verdict === "give back") state.sourceB = 0;
      if (typeof verdict === "string") return refused(instruction.text);
      return { ...done(`${instruction.text}: ${verdict.jump}`), goesOn: labels.get(verdict.jump)! };
    }
    case "take": {
      const text = `takes slot ${instruction.slot} of key ${instruction.key}`;
      if (!isAlive(state, side)) return refused(`cannot take a slot for a dead process`);
      if (takeSlot(state, side, instruction, scene.modes)) return done(text);
      setHeld(state, side, instruction.slot, 0); // none is had before the command but by a repeated one
      return refused(`is refused slot ${instruction.slot} of key ${instruction.key}, gives back the others`);
    }
    case "give-up": {
      if (!isAlive(state, side)) return refused("cannot unlock a slot of a dead process");
      const { slot, key } = instruction;
      setHeld(state, side, slot, heldBy(state, side, slot) & ~maskOf(key));
      return done(`gives up slot ${slot} of key ${key}`);
    }
    case "write-offer":
      state.offers[indexOf(instruction.key)] = Offer.current;
      return done(`writes the offer of key ${instruction.key}`);
    case "check-offers": {
      const wanted = state.ticket === Ticket.current ? Offer.current : Offer.old;
      const same = state.offers.every((offer) => offer === wanted);
      return same ? done("finds the offers as they were") : refused("finds other offers");
    }
    case "mark-offer-taken":
      if (state.offers[indexOf(instruction.key)] === Offer.none) return refused("finds an offer removed");
      state.offers[indexOf(instruction.key)] = Offer.taken;
      return done(`marks the offer of key ${instruction.key} as taken`);
    case "remove-offer":
      state.offers[indexOf(instruction.key)] = Offer.none;
      return done(`removes the offer of key ${instruction.key}`);
    case "write-record":
      writeRecord(state, side, instruction.state, scene);
      return done(`writes the record: ${instruction.state}`);
    case "remove-record":
      if (side === "source") state.sourceRecord = SourceRecord.none;
      else state.destinationRecord = DestinationRecord.none;
      return done("removes the record");
    case "become":
      state.destination = Destination.inmigrate;
      return done("becomes qemu -incoming");
    case "stop-source":
      if (state.source === Source.running) state.source = Source.paused;
      return done("sends stop to the source");
    case "cancel-stream":
      cancelStream(state, scene);
      return done("sends migrate_cancel to the source");
    case "continue":
      if (state.source === Source.dead || state.source === Source.final) {
        return refused("cannot continue QEMU");
      }
      if (state.pausedByUser === 0 && state.source !== Source.running) runSource(state);
      return done("sends cont to the source");
    case "quit-source":
      endSource(state);
      return done("ends the source's QEMU");
    case "end-destination":
      endDestination(state);
      return done("ends the destination's process");
    case "let-go":
      if (state.sourceRecord === SourceRecord.out) state.incomingGuest = IncomingGuest.letGo;
      return done("writes the record: let-go");
    case "continue-destination":
      if (state.destination === Destination.paused) runDestination(state);
      if (state.destination === Destination.inmigrate) state.startsHeld = 0;
      return done("sends cont to the destination");
    case "open":
    case "count":
    case "write-note":
    case "remove-note":
    case "label":
      throw new Error(`${instruction.step} is inert`);
  }
}

/** `migrate_cancel`. In the final phase QEMU resumes a guest that had run, even if the destination has got everything. */
function cancelStream(state: State, scene: Circumstances): void {
  if (!isSending(state)) return;
  const final = state.source === Source.final;
  state.stream = Stream.ended;
  if (state.link !== Link.none && state.destination === Destination.inmigrate && state.sent === 0) {
    state.link = Link.broken;
  }
  if (!final) return;
  if (state.resumes === 1) runSource(state);
  else state.source = Source[scene.failedWhilePaused];
}

function writeRecord(
  state: State,
  side: Side,
  written: "migrating-out" | "incoming" | "running",
  { driver }: Circumstances,
): void {
  if (side === "destination") {
    state.destinationRecord = written === "incoming" ? DestinationRecord.incoming : DestinationRecord.running;
    return;
  }
  state.sourceRecord = written === "running" ? SourceRecord.running : SourceRecord.out;
  if (written !== "migrating-out") return;
  state.incomingGuest = driver === "migrate run" ? IncomingGuest.held : IncomingGuest.unwatched;
  // Another prepare gives another ticket: what was written or is being used for the last one is out of date.
  state.offers = state.offers.map((offer) => offer === Offer.current ? Offer.old : offer) as [number, number];
  if (state.destination === Destination.starting) state.ticket = Ticket.old;
}

function isAlive(state: State, side: Side): boolean {
  return side === "source" ? state.source !== Source.dead : state.destination !== Destination.dead;
}

function takeSlot(
  state: State,
  side: Side,
  { key, slot, mode }: { key: string; slot: "a" | "b"; mode: LockMode },
  modes: Modes,
): boolean {
  const other = side === "source" ? "destination" : "source";
  const index = indexOf(key);
  if (mode === "exclusive" && (heldBy(state, other, slot) & maskOf(key)) !== 0) return false;
  const asks = index * 2 + (slot === "a" ? 0 : 1);
  const goTogether = mode === "shared" && modes.contender[index] === "shared";
  if (state.contender > asks && !goTogether) return false;
  setHeld(state, side, slot, heldBy(state, side, slot) | maskOf(key));
  return true;
}

/** The contender asks for its next slot: slot a, then b, of each key in ascending order. */
export function contend(state: State, { guest, contender }: Modes): "granted" | "refused" {
  const index = state.contender >> 1;
  const slot = state.contender % 2 === 0 ? "a" : "b";
  const held = (heldBy(state, "source", slot) | heldBy(state, "destination", slot)) & 1 << index;
  const goTogether = guest[index] === "shared" && contender[index] === "shared";
  if (held !== 0 && !goTogether) {
    state.contender = 0;
    return "refused";
  }
  if (state.contender === ALL_SLOTS) throw new RangeError("it has all");
  state.contender++;
  return "granted";
}

function heldBy(state: State, side: Side, slot: "a" | "b"): number {
  if (side === "destination") return slot === "a" ? state.destinationA : state.destinationB;
  return slot === "a" ? state.sourceA : state.sourceB;
}

function setHeld(state: State, side: Side, slot: "a" | "b", mask: number): void {
  if (side === "destination") {
    if (slot === "a") state.destinationA = mask;
    else state.destinationB = mask;
  } else if (slot === "a") state.sourceA = mask;
  else state.sourceB = mask;
}

/** Keys are called "1" and "2". */
function indexOf(key: string): 0 | 1 {
  return key === "1" ? 0 : 1;
}

function maskOf(key: string): number {
  return 1 << indexOf(key);
}
