import assert from "node:assert/strict";
import { keysOf, past } from "./support/garbage.ts";
import { canLock, flockedFiles, lockFiles } from "./support/kernel.ts";
import { unlockInside } from "./support/lost_lock.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

Deno.test("a paused guest that resumes waits for whoever only tries a lock, and is refused by who keeps it", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "600"]);
  assert.equal((await world.run(["pause", "vm1", "--release"])).code, 0);
  const { resource } = JSON.parse((await world.run(["inspect", "--json", disk])).stdout);
  const slot = `${resource.identities[0].key}.a`;
  assert.ok(lockFiles(world.lockspace).includes(slot));
  const file = await Deno.open(`${world.lockspace}/${slot}`, { read: true, write: true });
  await file.lock(true);
  const refused = await world.run(["resume", "vm1"]);
  assert.equal(refused.code, 75, refused.stderr);
  assert.match(refused.stderr, /left no note of a guest/);
  const resumed = world.run(["resume", "vm1"]);
  const [record] = Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`), ({ name }) => name)
    .filter((name) => name.endsWith(".json"));
  const lock = `${world.runtimeDir}/guests/${record!.replace(/json$/, "lock")}`;
  await until("resume is at work", async () => !await canLock(lock));
  await new Promise((resolve) => setTimeout(resolve, 200)); // it meets the lock meanwhile
  file.close();
  assert.equal((await resumed).code, 0, (await resumed).stderr);
});

for (const access of ["exclusive", "readonly"]) {
  Deno.test(`a guest that has lost a lock before it pauses does not forget who had the disk: ${access}`, async () => {
    await using world = await World.create();
    const disk = await world.disk("a");
    const guest = await world.startRunning([
      "run",
      "--name",
      "vm1",
      "--disk",
      `${disk},access=${access}`,
      "--",
      "sleep",
      "600",
    ]);
    const keys = await keysOf(world, disk);
    const lost = flockedFiles(guest.pid).filter((file) => keys.some((key) => file.includes(key)));
    for (const file of lost) await unlockInside(world, guest.pid, file);
    await past(world, "other", disk);
    assert.equal((await world.run(["pause", "vm1", "--release"])).code, 0);
    const refused = await world.run(["resume", "vm1"]);
    assert.equal(refused.code, 75, refused.stderr);
    assert.match(refused.stderr, new RegExp(`${disk} was locked by guest "other" .* in between`));
    const accepted = await world.run(["resume", "vm1", "--accept-changes"]);
    assert.equal(accepted.code, 0, accepted.stderr);
    // As it was granted, not stronger: what is lost tells no mode any more.
    const beside = ["run", "--name", "vm2", "--disk", `${disk},access=readonly`, "--", "true"];
    assert.equal((await world.run(beside)).code, access === "readonly" ? 0 : 75);
  });
}
