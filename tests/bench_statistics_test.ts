import assert from "node:assert/strict";
import { estimate, estimateText, median } from "./bench/paired.ts";

Deno.test("the median of an odd and of an even number of values", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.equal(median([7]), 7);
});

Deno.test("the bounds hold the median, and come together as the values do", () => {
  const random = (() => {
    let state = 1;
    return () => (state = state * 48271 % 2147483647) / 2147483647; // the same numbers each time
  })();
  const spread = Array.from({ length: 101 }, (_, index) => 1 + index / 100);
  const wide = estimate(spread, random);
  assert.equal(wide.median, 1.5);
  assert.ok(wide.low > 1.3 && wide.low < 1.5 && wide.high > 1.5 && wide.high < 1.7, estimateText(wide));
  const narrow = estimate(spread.map((value) => 1.5 + (value - 1.5) / 10), random);
  assert.ok(narrow.high - narrow.low < (wide.high - wide.low) / 5, estimateText(narrow));
  assert.deepEqual(estimate([2, 2, 2], random), { median: 2, low: 2, high: 2 });
});

Deno.test("an estimate in words", () => {
  assert.equal(
    estimateText({ median: 1.234, low: 1.2, high: 1.26 }),
    "1.23 (95 % confidence: 1.20 to 1.26)",
  );
});
