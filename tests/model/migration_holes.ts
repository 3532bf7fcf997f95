import {
  act,
  edit,
  LOST,
  moved,
  type Mutant,
  pretending,
  REPLACED,
  STALE_SOURCE,
  STUCK,
  TWO_WRITERS,
  without,
} from "./migration_mutant.ts";
import type { Instruction, Verdict } from "./migration_programs.ts";
import { IncomingGuest, Offer, Source, SourceRecord, type State, Stream } from "./migration_state.ts";

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
    found: REPLACED,
  },
  {
    fault: "a repeated prepare looks neither at QEMU nor at whether its offers were answered",
    change: edit("prepare", (all) =>
      all.map((each): Instruction =>
        each.step !== "look" ? each : {
          ...each,
          judge: ({ source, sourceRecord }) =>
            source === Source.dead
              ? "refuse"
              : sourceRecord === SourceRecord.running
              ? { jump: "offer" }
              : "go on",
        }
      )),
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
