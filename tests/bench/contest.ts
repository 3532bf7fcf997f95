/** Several ways to do the same thing, measured in turns in one run: what slows the machine slows all of them. */

/** One way. */
export interface Contestant {
  name: string;
  /** How many do it at the same time, each again and again. */
  clients: number;
  /** How often each of them does it in a round. */
  times: number;
  operate(client: number): Promise<void>;
}

/** What it took. */
export interface Timing {
  contestant: Contestant;
  /** Of each operation, in milliseconds, in ascending order. */
  took: number[];
  perSecond: number;
}

/** Runs all of them, in another order in each round. */
export async function compete(contestants: readonly Contestant[], rounds: number): Promise<Timing[]> {
  const entries = contestants.map((contestant) => ({ contestant, took: [] as number[], busy: 0 }));
  for (const { contestant } of entries) {
    for (let client = 0; client < contestant.clients; client++) await contestant.operate(client);
  }
  for (let round = 0; round < rounds; round++) {
    for (const entry of shuffled(entries)) {
      const begun = performance.now();
      await Promise.all(
        Array.from({ length: entry.contestant.clients }, (_, client) => again(entry, client)),
      );
      entry.busy += performance.now() - begun;
    }
  }
  return entries.map(({ contestant, took, busy }) => ({
    contestant,
    took: took.sort((one, other) => one - other),
    perSecond: took.length / busy * 1000,
  }));
}

async function again(
  { contestant, took }: { contestant: Contestant; took: number[] },
  client: number,
): Promise<void> {
  for (let time = 0; time < contestant.times; time++) {
    const begun = performance.now();
    await contestant.operate(client);
    took.push(performance.now() - begun);
  }
}

/** The value that a part of them, from 0 to 1, do not exceed. */
export function percentile(ascending: readonly number[], part: number): number {
  return ascending[Math.min(Math.floor(ascending.length * part), ascending.length - 1)]!;
}

/** One line for each, with how many times as long as the first it took. */
export function timingText(timings: readonly Timing[]): string {
  const yardstick = percentile(timings[0]!.took, 0.5);
  const width = Math.max(...timings.map(({ contestant: { name } }) => name.length));
  return timings.map(({ contestant: { name }, took, perSecond }) => {
    const half = percentile(took, 0.5);
    return [
      `  ${name.padEnd(width)}`,
      `p50 ${milliseconds(half)}`,
      `p99 ${milliseconds(percentile(took, 0.99))}`,
      `${perSecond.toFixed(0).padStart(6)}/s`,
      `x ${(half / yardstick).toFixed(2).padStart(7)}`,
      `(${took.length})`,
    ].join("  ");
  }).join("\n");
}

function milliseconds(value: number): string {
  return `${value.toFixed(3).padStart(9)} ms`;
}

function shuffled<Thing>(things: readonly Thing[]): Thing[] {
  const order = things.map((thing) => ({ thing, at: Math.random() }));
  return order.sort((one, other) => one.at - other.at).map(({ thing }) => thing);
}
