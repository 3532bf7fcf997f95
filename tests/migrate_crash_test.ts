import assert from "node:assert/strict";
import { MIGRATION_CRASHES } from "./crash/migration_cases.ts";
import { type MigrationCrash, type PlayedCrash, playMigrationCrash } from "./crash/migration_play.ts";
import { compareTable, killText, tableOf } from "./crash/migration_table.ts";

/** Rows that are played at the same time. */
const AT_ONCE = 3;

Deno.test(`${MIGRATION_CRASHES.length} crashes on the way of a guest end as the documentation's table says`, async () => {
  const faults: string[] = [];
  const played = await playAll(MIGRATION_CRASHES, (crash, error) => {
    faults.push(`${killText(crash)}: ${error instanceof Error ? error.stack : error}`);
  });
  assert.equal(faults.join("\n\n"), "");
  await compareTable(tableOf(played));
});

async function playAll(
  crashes: readonly MigrationCrash[],
  failed: (crash: MigrationCrash, error: unknown) => void,
): Promise<PlayedCrash[]> {
  const results = new Map<MigrationCrash, PlayedCrash>();
  const waiting = [...crashes];
  const work = async () => {
    for (let crash = waiting.shift(); crash !== undefined; crash = waiting.shift()) {
      try {
        results.set(crash, await playMigrationCrash(crash));
      } catch (error) {
        failed(crash, error);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return crashes.flatMap((crash) => results.get(crash) ?? []);
}
