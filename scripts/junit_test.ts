import assert from "node:assert/strict";
import { readReport } from "./junit.ts";

/** As Deno 2.9.6 writes it, shortened. */
const REPORT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deno test" tests="9" failures="2" errors="1" time="0.120">
    <testsuite name="./tests/a_test.ts" tests="8" disabled="3" errors="0" failures="2">
        <testcase name="passes" classname="./tests/a_test.ts" time="0.001" line="2" col="6">
        </testcase>
        <testcase name="fails in a step" classname="./tests/a_test.ts" time="0.005" line="3" col="6">
            <failure message="1 test step failed">1 test step failed.</failure>
        </testcase>
        <testcase name="is &quot;ignored&quot;" classname="./tests/a_test.ts" time="0.000" line="4" col="6">
            <skipped/>
        </testcase>
        <testcase name="has an ignored step" classname="./tests/a_test.ts" time="0.000" line="5" col="6">
        </testcase>
        <testcase name="was not asked for" classname="./tests/a_test.ts" line="6" col="6">
            <skipped/>
        </testcase>
        <testcase name="1 &gt; 0" classname="./tests/a_test.ts" time="0.000" line="7" col="6">
        </testcase>
        <testcase name="fails in a step &gt; two" classname="./tests/a_test.ts" time="0.003" line="3" col="70">
            <failure message="1 !== 2">at &lt;skipped&gt;</failure>
        </testcase>
        <testcase name="has an ignored step &gt; one" classname="./tests/a_test.ts" time="0.000" line="5" col="43">
            <skipped/>
        </testcase>
    </testsuite>
    <testsuite name="./tests/b_test.ts" tests="1" disabled="0" errors="1" failures="0">
        <testcase name="never ran" classname="./tests/b_test.ts" time="0.000" line="1" col="6">
            <error message="Cancelled"/>
        </testcase>
    </testsuite>
</testsuites>`;

Deno.test("a report gives each test once, with its steps, and leaves out what a filter left out", () => {
  assert.deepEqual(readReport(REPORT), [
    { file: "tests/a_test.ts", name: "passes", outcome: "passed" },
    { file: "tests/a_test.ts", name: "fails in a step", outcome: "failed" },
    { file: "tests/a_test.ts", name: 'is "ignored"', outcome: "skipped" },
    { file: "tests/a_test.ts", name: "has an ignored step", outcome: "skipped" },
    { file: "tests/a_test.ts", name: "1 > 0", outcome: "passed" },
    { file: "tests/b_test.ts", name: "never ran", outcome: "failed" },
  ]);
});

Deno.test("a report without tests gives none", () => {
  assert.deepEqual(readReport('<testsuites name="deno test" tests="0"></testsuites>'), []);
});
