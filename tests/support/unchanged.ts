import assert from "node:assert/strict";
import { kernelLocks } from "./guest_commands.ts";
import type { MigrationWorld } from "./migration_world.ts";
import { assertAnswer } from "./refused.ts";
import type { Finished } from "./world.ts";

/** What both hosts have: records, offers, notes, disks; and what the kernel shows of the lock files. */
async function stateOf({ images, source, destination }: MigrationWorld): Promise<unknown> {
  const directories = [images, source.directory, destination.directory];
  const format = "%p %y %m %U %s %i %T@ %l\\0";
  const { code, stdout, stderr } = await source.execute("find", [...directories, "-printf", format]);
  assert.equal(code, 0, stderr);
  const files = stdout.split("\0").filter((line) => !isRestless(line)).sort();
  return { files, locks: kernelLocks(source).map((line) => line.replace(/ -?\d+$/, "")) };
}

/** The empty files by which commands take turns, the directories that they come and go in, and a disk that is written. */
function isRestless(line: string): boolean {
  return /^\S+\/disk f /.test(line) || /^\S+\.lock f 600 \d+ 0 /.test(line) ||
    /^\S+\/run(\/guests)? d /.test(line) ||
    /^\S+\/lockvisor-test-[^/]+ d /.test(line);
}

/** Has a command refused: exit status, one line on standard error that fits, and nothing is changed on either host. */
export async function assertChangesNothing(
  world: MigrationWorld,
  run: () => Promise<Finished>,
  answer: { code: number; says: RegExp },
): Promise<void> {
  const before = await stateOf(world);
  const finished = await run();
  // A warning on the way does not refuse anything.
  const stderr = finished.stderr.replace(/^lockvisor: warning: .*\n/gm, "");
  assertAnswer({ ...finished, stderr }, answer);
  assert.deepEqual(await stateOf(world), before, `nothing has changed after: ${finished.stderr}`);
}
