import type { LockMode } from "../../lib/access.ts";
import type { MovingKey } from "../../lib/lockspace/migration_steps.ts";
import { compile, type Compiled, contend, type Modes, perform, placeAt } from "./migration_commands.ts";
import { type Driver, type Programs, programsOf } from "./migration_programs.ts";
import {
  ALL_SLOTS,
  BOTH,
  canArrive,
  decode,
  Destination,
  DestinationRecord,
  encode,
  endDestination,
  endSource,
  guestAlone,
  isSending,
  Link,
  Offer,
  runDestination,
  runSource,
  settle,
  Source,
  SourceRecord,
  type State,
  Stream,
  Ticket,
} from "./migration_state.ts";
import type { Model, Transition } from "./state_search.ts";

/** What is searched: who wants which keys how, who drives QEMU, and what QEMU or people may do. */
export interface Scene {
  modes: Modes;
  driver: Driver;
  /**
   * `never`: once all is sent, the source's QEMU does not fail any more. `late`: it waits for the destination's last
   * word (QEMU's return path), and fails if that dies before, though it may have run.
   */
  failsOnceSent: "never" | "late";
  /** Whether somebody continues by hand a destination that came up paused, with the source's migration cancelled. */
  continuesByHand: "only what has completed" | "anything";
}

/** The keys of the guest of a scene. */
export function keysOf({ modes }: Pick<Scene, "modes">): MovingKey[] {
  return modes.guest.map((mode: LockMode, index): MovingKey => ({ key: `${index + 1}`, mode }));
}

/** The model of a scene, of the commands as they are or as a mutant has them. */
export function migrationModel(
  scene: Scene,
  change: (programs: Programs) => Programs = (same) => same,
): Model {
  const programs = change(programsOf(keysOf(scene)));
  const source = compile("source", programs.source);
  const destination = compile("destination", programs.destination);
  const runner = compile("runner", [{ command: "migrate run", instructions: programs.runner }]);
  return {
    initial: [guestAlone(Source.running), guestAlone(Source.paused)].map(encode),
    next(code) {
      const ways = new Ways(code);
      sourceCommands(ways, source, scene);
      destinationCommands(ways, destination, scene);
      if (scene.driver === "migrate run") runnerCommand(ways, runner, scene);
      sourceQemu(ways, scene);
      destinationQemu(ways, scene);
      contender(ways, scene);
      return ways.found;
    },
    wrong: (code) => wrongIn(decode(code)),
    atRest: (code) => isAtRest(decode(code)),
  };
}

/** Collects what can happen next. */
class Ways {
  readonly found: Transition[] = [];
  readonly state: State;

  constructor(readonly code: number) {
    this.state = decode(code);
  }

  add(kind: Transition["kind"], change: (state: State) => string): void {
    const state = decode(this.code);
    const text = change(state);
    this.found.push({ to: encode(settle(state)), text, kind });
  }
}

function sourceCommands(ways: Ways, compiled: Compiled, { modes }: Scene): void {
  const go = (at: number) => goOn(ways, compiled, at, modes, (state, place) => state.sourceAt = place);
  if (ways.state.sourceAt === 0) compiled.starts.forEach(go);
  else {
    go(ways.state.sourceAt);
    ways.add("harmful", (state) => {
      state.sourceAt = 0;
      return `source: ${placeAt(compiled, ways.state.sourceAt).command} is killed`;
    });
  }
}

function destinationCommands(ways: Ways, compiled: Compiled, scene: Scene): void {
  const { state: before } = ways;
  const to = (state: State, place: number) => state.destinationAt = place;
  if (before.destinationAt === 0) {
    for (const at of compiled.starts) {
      if (placeAt(compiled, at).command !== "in") goOn(ways, compiled, at, scene.modes, to);
      else if (
        before.destination === Destination.dead && before.destinationRecord !== DestinationRecord.running
      ) {
        for (const ticket of [Ticket.current, Ticket.old]) {
          goOn(ways, compiled, at, scene.modes, to, (state) => begin(state, ticket, scene));
        }
      }
    }
    return;
  }
  goOn(ways, compiled, before.destinationAt, scene.modes, to);
  if (before.destination === Destination.starting) return; // its crash is that process's death
  ways.add("harmful", (state) => {
    state.destinationAt = 0;
    return `destination: ${placeAt(compiled, before.destinationAt).command} is killed`;
  });
}

/** `migrate run` starts its destination with -S; whoever uses the ticket once more need not. */
function begin(state: State, ticket: number, { driver }: Scene): void {
  state.destination = Destination.starting;
  state.ticket = ticket;
  state.startsHeld = driver === "migrate run" && !state.offers.includes(Offer.taken) ? 1 : 0;
}

function runnerCommand(ways: Ways, compiled: Compiled, { modes }: Scene): void {
  const at = ways.state.runnerAt;
  goOn(ways, compiled, at === 0 ? 1 : at, modes, (state, place) => state.runnerAt = place);
  if (at === 0) return;
  ways.add("harmful", (state) => {
    state.runnerAt = 0;
    return "migrate run is killed";
  });
}

/** One instruction of a command. One that refuses at its first look has not happened. */
function goOn(
  ways: Ways,
  compiled: Compiled,
  at: number,
  modes: Modes,
  to: (state: State, place: number) => void,
  prepare: (state: State) => void = () => {},
): void {
  const starts = compiled.starts.includes(at);
  const state = decode(ways.code);
  prepare(state);
  const { text, goesOn } = perform(compiled, at, state, modes);
  if (starts && goesOn === 0) return;
  if (goesOn === "waits") {
    ways.add("helpful", (state) => {
      to(state, 0);
      return `${text}, and gives up after a while`;
    });
    return;
  }
  to(state, goesOn);
  ways.found.push({ to: encode(settle(state)), text, kind: "helpful" });
}

function sourceQemu(ways: Ways, scene: Scene): void {
  const { source, stream, link, sent, destination, sourceRecord } = ways.state;
  if (source === Source.dead) {
    if (sourceRecord === SourceRecord.running) {
      ways.add("helpful", (state) => {
        state.sourceRecord = SourceRecord.none;
        return "source: attach removes the record of a dead guest";
      });
    }
    return;
  }
  ways.add("harmful", (state) => {
    endSource(state);
    return "the source's QEMU is killed";
  });
  const fresh = destination === Destination.inmigrate && link === Link.none;
  if (!isSending(ways.state) && source !== Source.final && fresh) {
    ways.add("harmful", (state) => {
      state.stream = Stream.active;
      state.link = state.sourceStale === 1 ? Link.stale : Link.good;
      return "the source's QEMU is told to migrate";
    });
  }
  const cut = !canArrive(ways.state);
  if (isSending(ways.state) && !cut && sent === 0) {
    ways.add("harmful", (state) => {
      state.link = Link.broken;
      return "the stream breaks";
    });
  }
  if (stream === Stream.active) {
    ways.add("helpful", (state) => {
      if (cut) {
        state.stream = Stream.ended;
        return "the source's QEMU finds the stream broken";
      }
      state.stream = Stream.final;
      state.resumes = state.source === Source.running ? 1 : 0;
      state.source = Source.final;
      return "the source's QEMU stops the guest for the switchover";
    });
  }
  if (stream === Stream.final) finalPhase(ways, cut, scene);
}

function finalPhase(ways: Ways, cut: boolean, { failsOnceSent }: Scene): void {
  const { sent } = ways.state;
  if (sent === 0 && !cut) {
    ways.add("helpful", (state) => {
      state.sent = 1;
      return "the source's QEMU has sent everything";
    });
  }
  if (sent === 1) {
    ways.add("helpful", (state) => {
      state.stream = Stream.completed;
      state.source = Source.postmigrate;
      return "the source's QEMU says completed";
    });
  }
  const fails = sent === 0 ? cut : failsOnceSent === "late" && ways.state.destination === Destination.dead;
  if (!fails) return;
  const fail = (then: (state: State) => string) =>
    ways.add("helpful", (state) => {
      state.stream = Stream.ended;
      return `the source's QEMU says failed, and ${then(state)}`;
    });
  if (ways.state.resumes === 1) {
    fail((state) => {
      runSource(state);
      return "resumes the guest by itself";
    });
  } else {
    fail((state) => {
      state.source = Source.paused;
      return "leaves the guest paused";
    });
    fail((state) => {
      state.source = Source.postmigrate;
      return "calls the paused guest postmigrate, as QEMU before 8.2";
    });
  }
}

function destinationQemu(ways: Ways, { driver, continuesByHand }: Scene): void {
  const { destination, destinationRecord, sent, resumes, startsHeld, link, source, stream } = ways.state;
  if (destination === Destination.dead) {
    if (destinationRecord === DestinationRecord.running) {
      ways.add("helpful", (state) => {
        state.destinationRecord = DestinationRecord.none;
        return "destination: attach removes the record of a dead guest";
      });
    }
    return;
  }
  const waitsInVain = destination === Destination.inmigrate && link === Link.broken;
  ways.add(waitsInVain ? "helpful" : "harmful", (state) => {
    endDestination(state);
    return waitsInVain
      ? "the destination's QEMU exits, as its stream is broken"
      : "the destination's process is killed";
  });
  if (canArrive(ways.state) && sent === 1) {
    ways.add("helpful", (state) => {
      if (resumes === 1 && startsHeld === 0) {
        runDestination(state);
        return "the destination's QEMU has got everything, and runs";
      }
      state.destination = Destination.paused;
      return "the destination's QEMU has got everything, and is paused";
    });
  }
  if (destination !== Destination.paused) return;
  const complete = destinationRecord === DestinationRecord.running;
  const seenCompleted = source === Source.dead || stream === Stream.completed;
  if (complete || (driver === "user" && (seenCompleted || continuesByHand === "anything"))) {
    ways.add("harmful", (state) => {
      runDestination(state);
      return "the user continues the destination's guest";
    });
  }
}

function contender(ways: Ways, { modes }: Scene): void {
  const { contender: held } = ways.state;
  if (held > 0) {
    ways.add("helpful", (state) => {
      state.contender = 0;
      return held === ALL_SLOTS ? "the contender ends" : "the contender is killed";
    });
  }
  if (held === ALL_SLOTS) return;
  ways.add(
    "harmful",
    (state) =>
      contend(state, modes) === "granted"
        ? `the contender gets slot ${held % 2 === 0 ? "a" : "b"} of key ${(held >> 1) + 1}${
          held + 1 === ALL_SLOTS ? ", and runs" : ""
        }`
        : "the contender is refused, and gives back what it has",
  );
}

/** What must never be. */
function wrongIn(state: State): string | undefined {
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
  return undefined;
}

/** One owner with both slots of all keys, or none, and nothing left of the migration. */
function isAtRest(state: State): boolean {
  if (state.sourceAt !== 0 || state.destinationAt !== 0 || state.runnerAt !== 0) return false;
  if (state.offers.some((offer) => offer !== Offer.none)) return false;
  const noSource = state.source === Source.dead && state.sourceRecord === SourceRecord.none;
  const noDestination = state.destination === Destination.dead &&
    state.destinationRecord === DestinationRecord.none;
  if (noSource && noDestination) return true;
  if (noDestination) {
    return (state.source === Source.running || state.source === Source.paused) &&
      state.sourceRecord === SourceRecord.running && (state.sourceA & state.sourceB) === BOTH;
  }
  return noSource && destinationOwns(state);
}

function destinationOwns(state: State): boolean {
  return (state.destination === Destination.running || state.destination === Destination.paused) &&
    state.destinationRecord === DestinationRecord.running &&
    (state.destinationA & state.destinationB) === BOTH;
}
