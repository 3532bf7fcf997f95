import { testAttach } from "./attach.ts";
import type { Candidate } from "./candidate.ts";
import { testHotplug } from "./hotplug.ts";
import { testMigration } from "./migration.ts";
import { testMigrationOrder } from "./migration_order.ts";
import { testOrder } from "./order.ts";
import { testParameters } from "./parameters.ts";
import { testPause } from "./pause.ts";
import { testRunningSequences } from "./running_sequences.ts";
import { testStart } from "./start.ts";
import { testStartSequences } from "./start_sequences.ts";
import { testSupervisor } from "./supervisor.ts";
import { testUndeclared } from "./undeclared.ts";

/** Registers every test that a driver must pass. */
export function testConformance(candidate: Candidate): void {
  testParameters(candidate);
  testOrder(candidate);
  testAttach(candidate);
  testStart(candidate);
  testStartSequences(candidate);
  testRunningSequences(candidate);
  testSupervisor(candidate);
  testUndeclared(candidate);
  if (candidate.definition.capabilities.hotplug) testHotplug(candidate);
  if (candidate.definition.capabilities.pause) testPause(candidate);
  if (candidate.definition.capabilities.migration) {
    testMigrationOrder(candidate);
    testMigration(candidate);
  }
}
