/** A search through every state that a model can reach, breadth first, so that what it finds wrong it tells shortest. */

/** A way on from a state. */
export interface Transition {
  to: number;
  /** What happens, for people. */
  text: string;
  /** `helpful`: what comes about by itself or by repeating commands; `harmful`: crashes and kills. */
  kind: "helpful" | "harmful";
}

/** What is searched. A state is one number, below 2^53. */
export interface Model {
  initial: readonly number[];
  next(state: number): readonly Transition[];
  /** What is wrong in a state, or undefined. */
  wrong(state: number): string | undefined;
  /** Whether nothing is left to do in a state. */
  atRest(state: number): boolean;
  /** What must be within reach by helpful steps. */
  hopes: readonly Hope[];
}

/** From every state `from` which it must be, one that is `good` can be reached. */
export interface Hope {
  from(state: number): boolean;
  good(state: number): boolean;
  /** What is wrong with a state from which none can be reached. */
  otherwise: string;
}

/** What came out. Every reachable state was looked at unless something was found wrong before. */
export type SearchOutcome =
  | { outcome: "holds"; states: number; transitions: number; depth: number; atRest: number }
  | { outcome: "violated"; what: string; trace: Trace; states: number };

/** How a state is reached, from an initial one. */
export interface Trace {
  start: number;
  steps: { text: string; state: number }[];
}

/** Looks at all states that can be reached. @throws {RangeError} for a model whose states cannot all be looked at */
export function search(model: Model): SearchOutcome {
  const known = new Map<number, number>();
  const states: number[] = [];
  const parents: number[] = [];
  const texts: string[] = [];
  const helpfulFrom: number[] = [];
  const helpfulTo: number[] = [];
  let transitions = 0;

  const add = (state: number, parent: number, text: string): number => {
    if (!Number.isSafeInteger(state) || state < 0) {
      throw new RangeError(`state ${state} is no number of a state`);
    }
    const index = states.length;
    known.set(state, index);
    states.push(state);
    parents.push(parent);
    texts.push(text);
    return index;
  };
  const traceTo = (index: number): Trace => {
    const steps: Trace["steps"] = [];
    let at = index;
    for (; parents[at]! >= 0; at = parents[at]!) steps.unshift({ text: texts[at]!, state: states[at]! });
    return { start: states[at]!, steps };
  };

  for (const state of model.initial) if (!known.has(state)) add(state, -1, "");
  // States that are found meanwhile are looked at in their turn: in the order of their distance.
  for (let index = 0; index < states.length; index++) {
    const state = states[index]!;
    const what = model.wrong(state);
    if (what !== undefined) {
      return { outcome: "violated", what, trace: traceTo(index), states: states.length };
    }
    for (const { to, text, kind } of model.next(state)) {
      transitions++;
      const target = known.get(to) ?? add(to, index, text);
      if (kind === "helpful") {
        helpfulFrom.push(index);
        helpfulTo.push(target);
      }
    }
  }

  for (const { from, good, otherwise } of model.hopes) {
    const hopeful = withinReach(states.map(good), helpfulFrom, helpfulTo);
    const lost = states.findIndex((state, index) => hopeful[index] === 0 && from(state));
    if (lost >= 0) {
      return { outcome: "violated", what: otherwise, trace: traceTo(lost), states: states.length };
    }
  }
  return {
    outcome: "holds",
    states: states.length,
    transitions,
    depth: traceTo(states.length - 1).steps.length,
    atRest: states.filter(model.atRest).length,
  };
}

/** From which states a good one can be reached: 1, else 0. Goes backwards from the good ones. */
function withinReach(
  good: readonly boolean[],
  from: readonly number[],
  to: readonly number[],
): Uint8Array<ArrayBuffer> {
  const begin = new Uint32Array(good.length + 1);
  for (const target of to) begin[target + 1]!++;
  for (let index = 0; index < good.length; index++) begin[index + 1]! += begin[index]!;
  const filled = begin.slice();
  const sources = new Uint32Array(from.length);
  for (let edge = 0; edge < to.length; edge++) sources[filled[to[edge]!]!++] = from[edge]!;

  const reached = Uint8Array.from(good, (each) => each ? 1 : 0);
  const waiting = [...reached.keys()].filter((index) => reached[index] === 1);
  for (let index = waiting.pop(); index !== undefined; index = waiting.pop()) {
    for (let edge = begin[index]!; edge < begin[index + 1]!; edge++) {
      const source = sources[edge]!;
      if (reached[source] === 1) continue;
      reached[source] = 1;
      waiting.push(source);
    }
  }
  return reached;
}

/** A trace as lines for people: what happened, and how things stood after it. */
export function tell(what: string, { start, steps }: Trace, describe: (state: number) => string): string {
  const number = (index: number) => `${index}`.padStart(String(steps.length).length);
  return [
    `VIOLATED after ${steps.length} steps: ${what}`,
    `  ${number(0)}. ${describe(start)}`,
    ...steps.map(({ text, state }, index) => `  ${number(index + 1)}. ${text}\n       ${describe(state)}`),
  ].join("\n");
}
