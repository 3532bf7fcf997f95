import type { Instruction, Programs } from "./migration_programs.ts";
import type { State } from "./migration_state.ts";

/** A fault in the commands that the search must find. */
export interface Mutant {
  fault: string;
  change(programs: Programs): Programs;
  /** What the search must say. */
  found: RegExp;
}

export type Edit = (instructions: readonly Instruction[]) => Instruction[];

export const TWO_WRITERS = /^two writers: the source and the destination$/;
export const SOURCE_UNLOCKED = /^the source's QEMU lives and holds no slot/;
export const DESTINATION_UNLOCKED = /^the destination's QEMU lives and holds no slot/;
export const STALE_SOURCE = /^the source runs on after its destination has run$/;
export const REPLACED = /^a destination has come in by a ticket that was replaced$/;
export const LOST = /^the guest is lost/;
export const STUCK = /^no state of rest can be reached/;

export function edit(command: string, change: Edit): Mutant["change"] {
  return ({ source, destination, runner }) => {
    const changed = (programs: Programs["source"]) =>
      programs.map((each) =>
        each.command === command ? { command, instructions: change(each.instructions) } : each
      );
    return { source: changed(source), destination: changed(destination), runner };
  };
}

/** A command that takes things for other than they are. */
export function pretending(command: string, seen: (state: State) => Partial<State>): Mutant["change"] {
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

export function without(step: Instruction["step"]): Edit {
  return (all) => all.filter((each) => each.step !== step);
}

/** With something done before the first step of a kind. */
export function before(step: Instruction["step"], added: Instruction): Edit {
  return (all) => all.toSpliced(all.findIndex((each) => each.step === step), 0, added);
}

/** With the steps of one kind moved to before the first of another. */
export function moved(
  all: readonly Instruction[],
  step: Instruction["step"],
  ahead: Instruction["step"],
): Instruction[] {
  const rest = without(step)(all);
  const place = rest.findLastIndex((each, index) => each.step === ahead && rest[index - 1]?.step !== ahead);
  return rest.toSpliced(place, 0, ...all.filter((each) => each.step === step));
}

/** Something that no command does. */
export function act(text: string, change: (state: State) => void): Instruction {
  return {
    step: "look",
    text,
    judge(state) {
      change(state);
      return "go on";
    },
  };
}
