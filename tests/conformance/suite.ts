import type { Candidate } from "./candidate.ts";
import { testOrder } from "./order.ts";
import { testParameters } from "./parameters.ts";
import { testStart } from "./start.ts";
import { testStartSequences } from "./start_sequences.ts";
import { testSupervisor } from "./supervisor.ts";

/** Registers every test that a driver must pass. */
export function testConformance(candidate: Candidate): void {
  testParameters(candidate);
  testOrder(candidate);
  testStart(candidate);
  testStartSequences(candidate);
  testSupervisor(candidate);
}
