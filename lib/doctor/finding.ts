/** How a check came out. `warning`: it works, but something is to be known or to be set right. */
export type Verdict = "ok" | "warning" | "failure";

/** What was judged, without the check's name. `text` says what was found and, unless all is well, what to do. */
export interface Judgement {
  verdict: Verdict;
  text: string;
}

/** The result of one check. */
export interface Finding extends Judgement {
  check: string;
}

/** A check's result from a judgement. */
export function finding(check: string, judgement: Judgement): Finding {
  return { check, ...judgement };
}

export function ok(text: string): Judgement {
  return { verdict: "ok", text };
}

export function warning(text: string): Judgement {
  return { verdict: "warning", text };
}

export function failure(text: string): Judgement {
  return { verdict: "failure", text };
}

/** Whether nothing failed; warnings are no failures. */
export function isHealthy(findings: readonly Finding[]): boolean {
  return findings.every(({ verdict }) => verdict !== "failure");
}
