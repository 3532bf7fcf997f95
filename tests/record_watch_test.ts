import assert from "node:assert/strict";
import { type RecordsDifference, RecordWatch } from "../lib/agent/record_watch.ts";
import { GuestStore, uuidOfRecordFile } from "../lib/manager/guest_store.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

const NOTHING: RecordsDifference = { changed: [], gone: [] };

/** What is told, by the names and UUIDs of guests. */
function told({ changed, gone }: RecordsDifference) {
  return { changed: changed.map((entry) => entry.kind === "record" ? entry.record.name : entry.kind), gone };
}

Deno.test("a look at one guest's record tells what has become of it, and nothing of others", async () => {
  await using world = await World.create();
  const start = async (name: string) => {
    const disk = await world.disk(`${name}.img`);
    return await world.startRunning(["run", "--name", name, "--disk", disk, "--", "sleep", "600"]);
  };
  await start("vm1");
  const vm2 = await start("vm2");
  const store = new GuestStore(world.runtimeDir);
  const watch = new RecordWatch(store);
  assert.deepEqual(told(watch.look()).changed.sort(), ["vm1", "vm2"]);
  const uuids = new Map(
    watch.entries().flatMap((entry) =>
      entry.kind === "record" ? [[entry.record.name, entry.record.uuid]] : []
    ),
  );
  const [uuid1, uuid2] = [uuids.get("vm1")!, uuids.get("vm2")!];
  assert.deepEqual(watch.lookAt([uuid1, uuid2]), NOTHING);

  const spare = await world.disk("spare.img");
  assert.equal((await world.run(["acquire", "vm1", "--disk", spare])).code, 0);
  assert.deepEqual(watch.lookAt([uuid2]), NOTHING);
  assert.deepEqual(told(watch.lookAt([uuid2, uuid1])), { changed: ["vm1"], gone: [] });
  assert.deepEqual(watch.lookAt([uuid1]), NOTHING);

  await vm2.kill();
  assert.deepEqual(watch.lookAt([uuid2]), NOTHING); // its record is there until somebody takes it away
  assert.equal((await world.run(["stop", "vm2"])).code, 0);
  await until("the record is gone", () => store.read(uuid2) === undefined);
  assert.deepEqual(watch.lookAt([uuid1]), NOTHING);
  assert.deepEqual(watch.lookAt([uuid2]), { changed: [], gone: [uuid2] });
  assert.deepEqual(watch.lookAt([uuid2]), NOTHING);
  assert.deepEqual(watch.look(), NOTHING);

  await start("vm3");
  assert.deepEqual(watch.lookAt([uuid1]), NOTHING);
  assert.deepEqual(told(watch.look()), { changed: ["vm3"], gone: [] });
});

Deno.test("a record's file is known by its name", () => {
  const uuid = "01234567-89ab-4def-8123-456789abcdef";
  assert.equal(uuidOfRecordFile(`${uuid}.json`), uuid);
  assert.equal(uuidOfRecordFile(`/run/lockvisor/guests/${uuid}.json`), uuid);
  for (const other of [`${uuid}.json.17.tmp`, `${uuid}.lock`, `${uuid}.name`, "agent.json", `${uuid}/x`]) {
    assert.equal(uuidOfRecordFile(other), undefined, other);
  }
});
