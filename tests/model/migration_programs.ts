import {
  cancelInSteps,
  cancelOutSteps,
  completeInSteps,
  completeOutSteps,
  inSteps,
  type MigrationStep,
  type MovingKey,
  prepareSteps,
} from "../../lib/lockspace/migration_steps.ts";
import {
  Destination,
  DestinationRecord,
  IncomingGuest,
  isSending,
  Offer,
  Source,
  SourceRecord,
  type State,
  Stream,
  Ticket,
} from "./migration_state.ts";

/** What a look at the state decides; `give back` refuses too, after giving slot b back that the command has taken. */
export type Verdict = "go on" | "wait" | "refuse" | "give back" | { jump: string };

/** What a command does between two points at which it may be killed. */
export type Instruction =
  | MigrationStep
  | { step: "look"; text: string; judge(state: State): Verdict }
  /** QMP commands and signals. */
  | { step: "stop-source" | "cancel-stream" | "quit-source" | "end-destination" | "continue-destination" }
  | { step: "let-go" }
  /** The place that a jump names; nothing happens there. */
  | { step: "label"; name: string };

/** A command of one side. */
export interface Program {
  command: string;
  instructions: readonly Instruction[];
}

/** All commands: those of each side run one at a time, beside those of the other side and beside `migrate run`. */
export interface Programs {
  source: readonly Program[];
  destination: readonly Program[];
  /** What `migrate run` does once everything has been sent. It may run beside another command of the source. */
  runner: readonly Instruction[];
}

/** Who starts the destination's QEMU and lets it run: a user's script, or `migrate run`, held with -S. */
export type Driver = "user" | "migrate run";

/**
 * Whether a source in `postmigrate` may have a destination that has run. QEMU before 8.2 calls a guest so too which was
 * paused when its migration failed or was cancelled: only `completed` tells that the destination could run.
 */
function mayHaveRun({ source, stream, incomingGuest }: State): boolean {
  return source === Source.postmigrate && stream === Stream.completed && incomingGuest !== IncomingGuest.held;
}

/** The commands as the design has them, with the holes closed that the search has found in it. */
export function programsOf(keys: readonly MovingKey[]): Programs {
  return {
    source: [
      { command: "prepare", instructions: prepareProgram(keys) },
      { command: "complete out", instructions: completeOutProgram(keys) },
      { command: "cancel out", instructions: cancelOutProgram(keys) },
    ],
    destination: [
      { command: "in", instructions: inProgram(keys) },
      { command: "complete in", instructions: completeInProgram(keys) },
      { command: "cancel in", instructions: cancelInProgram(keys) },
    ],
    runner: runnerProgram(),
  };
}

/**
 * A prepare that was cut off is repeated with a new ticket. It takes slot b back before it touches an offer: offers
 * belong to whoever holds that slot, so none is written over that an `in` has just answered.
 */
function prepareProgram(keys: readonly MovingKey[]): Instruction[] {
  return [
    {
      step: "look",
      text: "looks whether the guest can be offered",
      judge(state) {
        if (state.source !== Source.running && state.source !== Source.paused) return "refuse";
        if (isSending(state)) return "refuse";
        if (state.sourceRecord === SourceRecord.running) return { jump: "offer" };
        return state.sourceRecord === SourceRecord.out && state.offers.every((each) => each !== Offer.taken)
          ? "go on"
          : "refuse";
      },
    },
    ...takeB(keys),
    {
      step: "look",
      text: "looks again whether nobody has answered the offer",
      judge: ({ offers }) => offers.every((offer) => offer !== Offer.taken) ? "go on" : "give back",
    },
    { step: "label", name: "offer" },
    ...prepareSteps(keys),
  ];
}

/**
 * `complete` at the source ends a guest that has moved. Where QEMU does not say `completed` it has not; where the
 * destination is known not to have run, it must live: slot b, which is not ours, is held.
 */
function completeOutProgram(keys: readonly MovingKey[]): Instruction[] {
  return [
    {
      step: "look",
      text: "looks whether the source has sent everything or is dead",
      judge(state) {
        if (state.sourceRecord !== SourceRecord.out) return "refuse";
        if (state.source === Source.dead) return { jump: "ended" };
        if (state.source !== Source.postmigrate || state.stream !== Stream.completed) return "refuse";
        return state.incomingGuest === IncomingGuest.held && state.destinationB === 0 ? "refuse" : "go on";
      },
    },
    { step: "quit-source" },
    { step: "label", name: "ended" },
    ...completeOutSteps(keys),
  ];
}

/**
 * `cancel` at the source. `migrate_cancel` is sent only to a guest that was seen stopped by us, or with slot b in hand: a
 * guest that runs may have come into its final phase since, and QEMU would resume it beside its destination.
 *
 * In the final phase of a migration that the user drives not even slot b helps: the destination is known to be dead then,
 * but not whether it has run. Left alone, QEMU comes to `postmigrate` if everything was sent, and else runs on. Before
 * the switchover (`pre-switchover`) nothing of importance has been sent, but QEMU waits for ever.
 *
 * Once slot b is held, everything is looked at again: what could change it is dead from then on.
 */
function cancelOutProgram(keys: readonly MovingKey[]): Instruction[] {
  const [taking, after] = atLastTake(cancelOutSteps(keys));
  return [
    {
      step: "look",
      text: "looks at the source",
      judge: (state) =>
        state.sourceRecord !== SourceRecord.out || state.source === Source.dead
          ? "refuse"
          : howToCancel(state),
    },
    { step: "label", name: "stop" },
    { step: "stop-source" },
    { step: "look", text: "looks at the source again", judge: howToCancel },
    { step: "label", name: "cancel stream" },
    { step: "cancel-stream" },
    { step: "label", name: "settled" },
    {
      step: "look",
      text: "waits until QEMU sends no more",
      judge(state) {
        if (state.stream === Stream.preSwitchover) return { jump: "final phase" };
        return isSending(state) ? "wait" : mayHaveRun(state) ? "refuse" : { jump: "take back" };
      },
    },
    { step: "label", name: "final phase" },
    ...takeB(keys),
    {
      step: "look",
      text: "looks, with slot b in hand, whether the destination has not run",
      judge: (state) => state.source === Source.final && hasNotRun(state) ? "go on" : { jump: "settled" },
    },
    { step: "cancel-stream" },
    { step: "label", name: "take back" },
    ...taking,
    {
      step: "look",
      text: "looks again, with slot b in hand, whether the destination may have run",
      judge: (state) => isSending(state) ? { jump: "settled" } : mayHaveRun(state) ? "refuse" : "go on",
    },
    ...after,
  ];
}

function howToCancel(state: State): Verdict {
  if (mayHaveRun(state)) return "refuse";
  if (!isSending(state)) return { jump: "settled" };
  switch (state.source) {
    case Source.running:
      return { jump: "stop" };
    case Source.final:
      return { jump: hasNotRun(state) ? "final phase" : "settled" };
    default:
      return { jump: "cancel stream" };
  }
}

/** Whether the destination of a source in its final phase is sure not to have run, provided it is dead. */
function hasNotRun({ incomingGuest, stream }: State): boolean {
  return incomingGuest === IncomingGuest.held || stream === Stream.preSwitchover;
}

function inProgram(keys: readonly MovingKey[]): Instruction[] {
  return [
    { step: "look", text: "looks whether the offers are of its ticket", judge: goesWithTicket },
    ...inSteps(keys),
  ];
}

/** Whether all offers are of the ticket that `in` was given, and not answered. */
export function goesWithTicket({ offers, ticket }: State): Verdict {
  const wanted = ticket === Ticket.current ? Offer.current : Offer.old;
  return offers.every((offer) => offer === wanted) ? "go on" : "refuse";
}

function completeInProgram(keys: readonly MovingKey[]): Instruction[] {
  return [
    {
      step: "look",
      text: "looks whether QEMU has left inmigrate",
      judge: ({ destinationRecord, destination }) =>
        destinationRecord === DestinationRecord.incoming &&
          (destination === Destination.running || destination === Destination.paused)
          ? "go on"
          : "refuse",
    },
    ...completeInSteps(keys),
  ];
}

function cancelInProgram(keys: readonly MovingKey[]): Instruction[] {
  return [
    {
      step: "look",
      text: "looks whether the guest runs",
      judge({ destinationRecord, destination }) {
        if (destinationRecord !== DestinationRecord.incoming) return "refuse";
        if (destination === Destination.dead) return { jump: "ended" };
        return destination === Destination.inmigrate || destination === Destination.paused
          ? "go on"
          : "refuse";
      },
    },
    { step: "end-destination" },
    { step: "label", name: "ended" },
    ...cancelInSteps(keys),
  ];
}

/** `migrate run` writes that it lets the destination go before it does: from then on the source is never continued. */
function runnerProgram(): Instruction[] {
  return [
    {
      step: "look",
      text: "looks whether all was sent and the destination waits",
      judge: (state) =>
        state.incomingGuest === IncomingGuest.held && state.source === Source.postmigrate &&
          state.stream === Stream.completed && state.destination === Destination.paused
          ? "go on"
          : "refuse",
    },
    { step: "let-go" },
    { step: "continue-destination" },
  ];
}

/** Takes slot b of each key. */
export function takeB(keys: readonly MovingKey[]): Instruction[] {
  return keys.map(({ key, mode }) => ({ step: "take", key, slot: "b", mode }));
}

/** Steps up to the last lock that is taken, and those after it. */
export function atLastTake(steps: readonly MigrationStep[]): [MigrationStep[], MigrationStep[]] {
  const last = steps.findLastIndex(({ step }) => step === "take");
  return [steps.slice(0, last + 1), steps.slice(last + 1)];
}
