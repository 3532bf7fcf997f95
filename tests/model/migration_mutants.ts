import type { Instruction, Programs, Verdict } from "./migration_programs.ts";
import { Destination, IncomingGuest, Offer, Source, type State, Stream } from "./migration_state.ts";

/** A fault in the commands that the search must find. */
export interface Mutant {
  fault: string;
  change(programs: Programs): Programs;
  /** What the search must say. */
  found: RegExp;
}

type Edit = (instructions: readonly Instruction[]) => Instruction[];

const TWO_WRITERS = /^two writers: the source and the destination$/;
const SOURCE_UNLOCKED = /^the source's QEMU lives and holds no slot/;
const DESTINATION_UNLOCKED = /^the destination's QEMU lives and holds no slot/;
const STALE_SOURCE = /^the source runs on after its destination has run$/;
const LOST = /^the guest is lost/;
const STUCK = /^no state of rest can be reached/;

/** Steps left out, exchanged or done without looking. */
export const FAULTS: readonly Mutant[] = [
  {
    fault: "prepare gives up slot a instead of b",
    change: edit(
      "prepare",
      (all) => all.map((each) => each.step === "give-up" ? { ...each, slot: "a" } : each),
    ),
    found: STUCK,
  },
  {
    fault: "prepare gives up both slots",
    change: edit(
      "prepare",
      (all) =>
        all.flatMap((each): Instruction[] =>
          each.step === "give-up" ? [each, { ...each, slot: "a" }] : [each]
        ),
    ),
    found: SOURCE_UNLOCKED,
  },
  {
    fault: "in takes no slot",
    change: edit("in", without("take")),
    found: DESTINATION_UNLOCKED,
  },
  {
    fault: "in takes the slots of all keys but the last",
    change: edit("in", (all) => all.toSpliced(all.findLastIndex(({ step }) => step === "take"), 1)),
    found: DESTINATION_UNLOCKED,
  },
  {
    fault: "in accepts a ticket that was used",
    change: edit(
      "in",
      (all) =>
        without("check-offers")(all).map((each): Instruction =>
          each.step !== "look" ? each : {
            ...each,
            judge: ({ offers }) => offers.every((offer) => offer !== Offer.none) ? "go on" : "refuse",
          }
        ),
    ),
    found: STALE_SOURCE,
  },
  {
    fault: "complete in unlocks the source's slot a before its end",
    change: edit(
      "complete in",
      before("take", act("unlocks slot a of the source", (state) => state.sourceA = 0)),
    ),
    found: SOURCE_UNLOCKED,
  },
  {
    fault: "complete in does not take slot a",
    change: edit("complete in", without("take")),
    found: STALE_SOURCE,
  },
  {
    fault: "complete in does not wait until QEMU has left inmigrate",
    change: pretending(
      "complete in",
      ({ destination }) => destination === Destination.inmigrate ? { destination: Destination.paused } : {},
    ),
    found: STUCK,
  },
  {
    fault: "complete out unlocks slot a instead of ending QEMU",
    change: edit(
      "complete out",
      (all) =>
        all.map((each) =>
          each.step === "quit-source" ? act("unlocks slot a", (state) => state.sourceA = 0) : each
        ),
    ),
    found: SOURCE_UNLOCKED,
  },
  {
    fault: "complete out removes its record before the offers",
    change: edit("complete out", (all) => moved(all, "remove-record", "remove-offer")),
    found: STUCK,
  },
  {
    fault: "cancel out continues before it has slot b",
    change: edit("cancel out", (all) => moved(all, "continue", "take")),
    found: TWO_WRITERS,
  },
  {
    fault: "cancel out does not take slot b",
    change: edit("cancel out", without("take")),
    found: TWO_WRITERS,
  },
  {
    fault: "cancel out takes slot b of the first key only",
    change: edit("cancel out", (all) => all.filter((each) => each.step !== "take" || each.key === "1")),
    found: STUCK,
  },
  {
    fault: "cancel out does not stop the guest before migrate_cancel",
    change: edit(
      "cancel out",
      (all) => all.toSpliced(all.findIndex(({ step }) => step === "stop-source"), 2),
    ),
    found: TWO_WRITERS,
  },
  {
    fault: "cancel out continues from postmigrate whoever may have run",
    change: pretending("cancel out", () => ({ incomingGuest: IncomingGuest.held })),
    found: STALE_SOURCE,
  },
  {
    fault: "cancel out leaves the offers",
    change: edit("cancel out", without("remove-offer")),
    found: STUCK,
  },
  {
    fault: "cancel in does not end the destination",
    change: edit("cancel in", without("end-destination")),
    found: STUCK,
  },
  {
    fault: "migrate run continues the destination before it writes let-go",
    change: (programs) => ({ ...programs, runner: moved(programs.runner, "continue-destination", "let-go") }),
    found: STALE_SOURCE,
  },
  {
    fault: "migrate run does not wait until everything was sent",
    change: (programs) => ({ ...programs, runner: without("look")(programs.runner) }),
    found: STALE_SOURCE,
  },
];

/** What the design said at first: faults that the search has found in it. */
export const HOLES: readonly Mutant[] = [
  {
    fault: "cancel out sends migrate_cancel to a guest that runs, as no migration was active when it looked",
    change: edit("cancel out", (all) => {
      const [first, ...rest] = all;
      if (first?.step !== "look") throw new Error("cancel out begins with a look");
      const judge = (state: State): Verdict => {
        const verdict = first.judge(state);
        const unasked = typeof verdict === "object" && verdict.jump === "settled" &&
          state.source !== Source.final;
        return unasked ? { jump: "cancel stream" } : verdict;
      };
      return [{ ...first, judge }, ...rest];
    }),
    found: TWO_WRITERS,
  },
  {
    fault: "cancel out in the final phase takes slot b, then sends migrate_cancel, whoever drives QEMU",
    change: pretending(
      "cancel out",
      ({ source }) => source === Source.final ? { incomingGuest: IncomingGuest.held } : {},
    ),
    found: STALE_SOURCE,
  },
  {
    fault: "cancel out looks at QEMU and the record before it has slot b, and not after",
    change: edit("cancel out", (all) => {
      const last = all.findLastIndex(({ step }) => step === "look");
      return all.toSpliced(last, 1);
    }),
    found: STALE_SOURCE,
  },
  {
    fault: "cancel out writes the record before it removes the offers and continues the guest",
    change: edit("cancel out", (all) => moved(all, "write-record", "remove-offer")),
    found: STUCK,
  },
  {
    fault:
      "complete out ends a guest in postmigrate that has not moved, as QEMU before 8.2 calls a paused one",
    change: pretending(
      "complete out",
      ({ source, stream }) =>
        source === Source.postmigrate && stream === Stream.ended ? { stream: Stream.completed } : {},
    ),
    found: LOST,
  },
  {
    fault: "cancel out refuses a guest in postmigrate that has not moved",
    change: pretending(
      "cancel out",
      ({ source, stream }) =>
        source === Source.postmigrate && stream === Stream.ended ? { stream: Stream.completed } : {},
    ),
    found: STUCK,
  },
  {
    fault: "cancel out waits before the switchover for QEMU to go on",
    change: pretending(
      "cancel out",
      ({ stream, incomingGuest }) =>
        stream === Stream.preSwitchover && incomingGuest !== IncomingGuest.held
          ? { stream: Stream.final }
          : {},
    ),
    found: STUCK,
  },
  {
    fault: "a repeated prepare writes offers without slot b in hand",
    change: edit("prepare", without("take")),
    found: STALE_SOURCE,
  },
  {
    fault: "in marks offers that were removed",
    change: edit(
      "in",
      (all) =>
        all.map((each): Instruction =>
          each.step !== "mark-offer-taken"
            ? each
            : act(`writes the offer of key ${each.key} as taken`, ({ offers }) => {
              offers[each.key === "1" ? 0 : 1] = Offer.taken;
            })
        ),
    ),
    found: STUCK,
  },
];

function edit(command: string, change: Edit): Mutant["change"] {
  return ({ source, destination, runner }) => {
    const changed = (programs: Programs["source"]) =>
      programs.map((each) =>
        each.command === command ? { command, instructions: change(each.instructions) } : each
      );
    return { source: changed(source), destination: changed(destination), runner };
  };
}

/** A command that takes things for other than they are. */
function pretending(command: string, seen: (state: State) => Partial<State>): Mutant["change"] {
  return edit(
    command,
    (all) =>
      all.map((each) =>
        each.step !== "look"
          ? each
          : { ...each, judge: (state: State) => each.judge({ ...state, ...seen(state) }) }
      ),
  );
}

function without(step: Instruction["step"]): Edit {
  return (all) => all.filter((each) => each.step !== step);
}

/** With something done before the first step of a kind. */
function before(step: Instruction["step"], added: Instruction): Edit {
  return (all) => all.toSpliced(all.findIndex((each) => each.step === step), 0, added);
}

/** With the steps of one kind moved to before the first of another. */
function moved(
  all: readonly Instruction[],
  step: Instruction["step"],
  ahead: Instruction["step"],
): Instruction[] {
  const rest = without(step)(all);
  const place = rest.findLastIndex((each, index) => each.step === ahead && rest[index - 1]?.step !== ahead);
  return rest.toSpliced(place, 0, ...all.filter((each) => each.step === step));
}

/** Something that no command does. */
function act(text: string, change: (state: State) => void): Instruction {
  return {
    step: "look",
    text,
    judge(state) {
      change(state);
      return "go on";
    },
  };
}
