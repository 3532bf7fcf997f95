import assert from "node:assert/strict";
import {
  ANOTHER_USER,
  guestOfAnother,
  processName,
  processState,
  records,
} from "./support/missing_rights.ts";
import { until } from "./support/until.ts";
import { BINARY, World } from "./support/world.ts";

for (const hidepid of ["noaccess", "invisible"]) {
  Deno.test(`a guest whose process /proc hides (hidepid=${hidepid}) has not ended`, async () => {
    await using world = await World.create();
    const disk = await world.disk("a");
    const guest = await guestOfAnother(world, disk);
    const run = ["run", "--name", "vm2", "--plugin", "nop", "--", ...ANOTHER_USER, "sleep", "600"];
    const unlocked = await world.startRunning(run);
    await until("it is another user's", () => processName(unlocked.pid) === "sleep");
    const before = records(world);
    const script = `
      mount -t proc -o hidepid=${hidepid},gid=65533 proc /proc || exit 9
      for command in "status" "attach --on-lost kill" "stop vm1" "stop vm2" "wait vm2" "release vm1 --disk ${disk}"
      do "$0" $command; echo "$command: $?"; done`;
    const bounds = ["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
    const words = ["--mount", "setpriv", ...bounds, "sh", "-c", script, BINARY];
    const { code, stdout, stderr } = await world.execute("unshare", words);
    assert.equal(code, 0, stderr);
    const statuses = stdout.split("\n").filter((line) => /: \d+$/.test(line));
    assert.deepEqual(statuses, [
      "status: 0",
      "attach --on-lost kill: 0",
      "stop vm1: 69",
      "stop vm2: 69",
      "wait vm2: 69",
      `release vm1 --disk ${disk}: 77`,
    ]);
    for (const shown of [/^vm1 +running +\d+ +\S+ +3\/3 /m, /^vm2 +running /m]) assert.match(stdout, shown);
    assert.match(
      stderr,
      new RegExp(`guest "vm1" \\(pid ${guest.pid}\\) runs in another pid namespace, or is hidden`),
    );
    assert.deepEqual(records(world), before);
    assert.deepEqual([processState(guest.pid), processState(unlocked.pid)], ["S", "S"]);
  });
}
