import {
  act,
  before,
  DESTINATION_UNLOCKED,
  edit,
  moved,
  type Mutant,
  pretending,
  REPLACED,
  SOURCE_UNLOCKED,
  STALE_SOURCE,
  STUCK,
  TWO_WRITERS,
  without,
} from "./migration_mutant.ts";
import type { Instruction } from "./migration_programs.ts";
import { Destination, IncomingGuest, Offer, Ticket } from "./migration_state.ts";

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
        all.map((each) =>
          each.step !== "look" && each.step !== "check-offers" ? each : {
            step: "look",
            text: "looks whether the offers are of its ticket, answered or not",
            judge: ({ offers, ticket }) =>
              ticket === Ticket.current &&
                offers.every((each) => each === Offer.current || each === Offer.taken)
                ? "go on"
                : "refuse",
          }
        ),
    ),
    found: STALE_SOURCE,
  },
  {
    fault: "in does not look at the offers again once it has slot b",
    change: edit("in", without("check-offers")),
    found: REPLACED,
  },
  {
    fault: "in does not mark the offers as taken",
    change: edit("in", without("mark-offer-taken")),
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
