import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import { World } from "./support/world.ts";

const GUESTS = 6;
const TIMES = 15;

Deno.test("guests whose disks many clients give back at the same time are still watched", async () => {
  await using world = await World.create();
  // No look at all locks in between: what is lost is lost.
  await using agent = await Agent.start(world, ["--audit-interval", "60m"]);
  using events = await agent.events();
  const guests = await Promise.all(Array.from({ length: GUESTS }, async (_, number) => {
    const [disk, spare] = [await world.disk(`disk-${number}`), await world.disk(`spare-${number}`)];
    const name = `vm${number}`;
    const guest = await world.startRunning(["run", "--name", name, "--disk", disk, "--", "sleep", "600"]);
    return { name, guest, spare };
  }));
  // Each has started, and has got its disk.
  await events.take(2 * GUESTS);
  await Promise.all(guests.map(async ({ name, spare }) => {
    for (let time = 0; time < TIMES; time++) {
      for (const way of ["acquire", "release"]) {
        const { status } = await agent.post(`/v1/guests/${name}/${way}`, { disks: [{ path: spare }] });
        assert.equal(status, 200);
      }
    }
  }));
  for (const event of await events.take(2 * TIMES * GUESTS)) {
    assert.ok(event.type === "lock-granted" || event.type === "lock-released", JSON.stringify(event));
  }
  for (const { name, guest } of guests) {
    await guest.kill();
    const event = await events.next();
    assert.deepEqual([event.type, event.guest?.name], ["guest-ended", name]);
  }
});
