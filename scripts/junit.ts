/** What came of one test, with its steps. */
export interface TestResult {
  file: string;
  name: string;
  outcome: "passed" | "failed" | "skipped";
}

interface TestCase {
  name: string;
  outcome: TestResult["outcome"] | "filtered out";
}

/**
 * The tests in a report of `deno test --junit-path`. Steps have entries of their own there, named
 * `test > step`; they count with their test, which is skipped when one of its steps is.
 * Tests that a filter left out are not in the result: nobody asked for them.
 */
export function readReport(xml: string): TestResult[] {
  return [...xml.matchAll(/<testsuite\s+name="([^"]*)"[^>]*>([^]*?)<\/testsuite>/g)].flatMap((
    [, file, body],
  ) => summarize(readCases(body!)).map((test) => ({ file: unescape(file!).replace(/^\.\//, ""), ...test })));
}

function readCases(suite: string): TestCase[] {
  return [...suite.matchAll(/<testcase\s([^>]*?)(?:\/>|>([^]*?)<\/testcase>)/g)].map((
    [, attributes, body = ""],
  ) => ({
    name: unescape(/\bname="([^"]*)"/.exec(attributes!)?.[1] ?? "?"),
    outcome: outcomeOf(attributes!, body),
  }));
}

/** Deno gives a test that was ignored a duration, and one that a filter left out none (2.7.11 and 2.9.6). */
function outcomeOf(attributes: string, body: string): TestCase["outcome"] {
  if (/<(failure|error)\b/.test(body)) return "failed";
  if (!/<skipped\b/.test(body)) return "passed";
  return /\btime="/.test(attributes) ? "skipped" : "filtered out";
}

function summarize(cases: TestCase[]): Omit<TestResult, "file">[] {
  const names = new Set(cases.map(({ name }) => name));
  const results: Omit<TestResult, "file">[] = [];
  for (const { name, outcome } of cases) {
    if (outcome === "filtered out" || isStep(name, names)) continue;
    const isSkippedInPart = cases.some((other) =>
      other.name.startsWith(`${name} > `) && other.outcome === "skipped"
    );
    results.push({ name, outcome: outcome === "passed" && isSkippedInPart ? "skipped" : outcome });
  }
  return results;
}

/** Whether some test or step has this one under it: a test may have ` > ` in a name of its own. */
function isStep(name: string, names: Set<string>): boolean {
  for (let at = name.indexOf(" > "); at >= 0; at = name.indexOf(" > ", at + 1)) {
    if (names.has(name.slice(0, at))) return true;
  }
  return false;
}

const ENTITIES: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };

function unescape(text: string): string {
  return text.replace(/&(lt|gt|quot|apos|amp);/g, (_, entity: string) => ENTITIES[entity]!)
    .replace(
      /&#(x?)([0-9a-fA-F]+);/g,
      (_, hex, digits) => String.fromCodePoint(parseInt(digits, hex === "" ? 10 : 16)),
    );
}
