/** Comparing two programs that are run in pairs, and how far the result can be trusted. */

/** The middle of some numbers: half are below it, half above. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((one, other) => one - other);
  const middle = sorted.length / 2;
  return (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2;
}

/** A median, and the bounds between which the true one lies in 95 of 100 measurements like this. */
export interface Estimate {
  median: number;
  low: number;
  high: number;
}

/** How often the pairs are drawn anew for the bounds. */
const DRAWS = 2000;

/**
 * The median of ratios with its bounds, by the percentile bootstrap (Efron and Tibshirani, An Introduction to the
 * Bootstrap, 1993, 13.3): as many are drawn from them at random, with repetition, again and again, and the bounds hold
 * the middle 95 % of the medians.
 * @param random gives numbers from 0 to below 1
 */
export function estimate(ratios: readonly number[], random: () => number = Math.random): Estimate {
  const medians = Array.from(
    { length: DRAWS },
    () => median(ratios.map(() => ratios[Math.floor(random() * ratios.length)]!)),
  ).sort((one, other) => one - other);
  return {
    median: median(ratios),
    low: medians[Math.floor(DRAWS * 0.025)]!,
    high: medians[Math.ceil(DRAWS * 0.975) - 1]!,
  };
}

/** An estimate in words, as `1.23 (95 % confidence: 1.21 to 1.26)`. */
export function estimateText({ median, low, high }: Estimate): string {
  return `${median.toFixed(2)} (95 % confidence: ${low.toFixed(2)} to ${high.toFixed(2)})`;
}

/** One of some things, at random. */
export function anyOf<Thing>(things: readonly Thing[]): Thing {
  return things[Math.floor(Math.random() * things.length)]!;
}
