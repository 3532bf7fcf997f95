import assert from "node:assert/strict";
import fc from "fast-check";
import { LockvisorError } from "../lib/errors.ts";
import { formatLockState, parseLockState } from "../lib/manager/lock_state.ts";

const KEY = "0123456789abcdef".repeat(4);

const givenUp = fc.record({
  key: fc.stringMatching(/^[0-9a-f]{64}$/),
  mode: fc.constantFrom("exclusive" as const, "shared" as const),
  generation: fc.oneof(fc.nat(), fc.maxSafeNat(), fc.constant(Number.MAX_SAFE_INTEGER)),
}, { noNullPrototype: true });
/** A guest has each key once. */
const states = fc.uniqueArray(givenUp, { selector: ({ key }) => key, maxLength: 20 });

Deno.test("a state is read as it was written, whatever the order of its keys", () => {
  fc.assert(fc.property(states, (keys) => {
    const text = formatLockState(keys);
    const byKey = (one: { key: string }, other: { key: string }) => one.key < other.key ? -1 : 1;
    assert.deepEqual(parseLockState(text).sort(byKey), keys.toSorted(byKey));
    assert.equal(formatLockState(parseLockState(text)), text);
    assert.equal(formatLockState(keys.toReversed()), text, "the order does not count");
    assert.match(text, /^[ -~]+$/, "one line that a shell and JSON carry as it is");
    assert.deepEqual(
      parseLockState(`\n${text}\n`),
      parseLockState(text),
      "line breaks around it do not count",
    );
  }));
});

const WRONG = [
  "",
  " ",
  "0",
  "2",
  "1.0",
  "01",
  `${KEY}:exclusive:1`,
  `1 ${KEY}`,
  `1 ${KEY}:exclusive`,
  `1 ${KEY}:exclusive:`,
  `1 ${KEY}:exclusive:-1`,
  `1 ${KEY}:exclusive:1.5`,
  `1 ${KEY}:exclusive:1e3`,
  `1 ${KEY}:exclusive:0x1`,
  `1 ${KEY}:exclusive:01`,
  `1 ${KEY}:exclusive:9007199254740992`,
  `1 ${KEY}:exclusive:99999999999999999999`,
  `1 ${KEY}:exclusive:1:1`,
  `1 ${KEY}:readonly:1`,
  `1 ${KEY.toUpperCase()}:exclusive:1`,
  `1 ${KEY.slice(1)}:exclusive:1`,
  `1 ${KEY}0:exclusive:1`,
  `1  ${KEY}:exclusive:1`,
  `1\t${KEY}:exclusive:1`,
  `1 ${KEY}:exclusive:1\n1 ${KEY}:exclusive:2`,
  `1 ${KEY}:exclusive:1 ${KEY}:exclusive:2`,
  `1 ${KEY}:exclusive:1 ${KEY}:shared:1`,
  `1 __proto__:exclusive:1`,
  "null",
  "{}",
  "\u202e1",
  "x".repeat(100_000),
];

Deno.test("what is no state is refused, in one line that shows its beginning", () => {
  for (const text of WRONG) assertRefused(text);
});

Deno.test("a state with something wrong in it is refused as a whole", () => {
  const faults = fc.constantFrom(":", " ", "\0", "g", "\n", "é", "\u2028", "-");
  const broken = fc.tuple(states, fc.nat(), faults).map(([keys, at, fault]) => {
    const text = formatLockState(keys);
    const place = at % text.length;
    // White space around a state does not count, so at an end it would only cut off the version or a digit.
    if (place === 0 || place === text.length - 1 || text[place] === fault) return "x" + text;
    return text.slice(0, place) + fault + text.slice(place + 1);
  });
  fc.assert(fc.property(broken, (text) => {
    assertRefused(text);
  }));
});

Deno.test("no text whatever is taken for a state by chance, nor makes more of itself", () => {
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 200 }), (text) => {
    try {
      const keys = parseLockState(text);
      assert.equal(
        formatLockState(keys).split(" ").sort().join(" "),
        text.trim().split(" ").sort().join(" "),
      );
    } catch (error) {
      assert.ok(error instanceof LockvisorError, String(error));
    }
  }));
});

function assertRefused(text: string): void {
  assert.throws(() => parseLockState(text), (error) => {
    assert.ok(error instanceof LockvisorError, `${JSON.stringify(text.slice(0, 99))}: ${error}`);
    assert.equal(error.code, "data");
    assert.match(error.message, /^\P{Cc}{1,700}$/u, "one line");
    assert.match(error.message, / is not the state of a guest's locks, as pause and inquire give it$/);
    return true;
  });
}
