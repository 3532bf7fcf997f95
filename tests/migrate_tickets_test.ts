import assert from "node:assert/strict";
import { keyOf } from "../lib/identity/key.ts";
import {
  comeInSleep,
  declareStorage,
  done,
  json,
  MigrationWorld,
  slotsText,
  startSleep,
} from "./support/migration_world.ts";
import { assertChangesNothing } from "./support/unchanged.ts";

/** A ticket as JSON. */
// deno-lint-ignore no-explicit-any -- it is spoilt in every way
type Ticket = any;

const CHANGED = /this is not the ticket that guest "vm1" may come in by/;
const OTHER_KEY = keyOf("another key");

/** How a ticket is spoilt, and what it is refused with. */
const SPOILT: Record<string, { spoil: (ticket: Ticket) => void; code?: number; says?: RegExp }> = {
  "another version": { spoil: (it) => it.version = 2, code: 65, says: /its version is not known here/ },
  "another secret": { spoil: (it) => it.secret = "0".repeat(64) },
  "a short secret": { spoil: (it) => it.secret = "00", code: 65, says: /64 hexadecimal digits/ },
  "another time": { spoil: (it) => it.created = "2026-01-01T00:00:00.000Z" },
  "a later end": { spoil: (it) => it.expires = "2126-01-01T00:00:00.000Z" },
  "an end that is no time": {
    spoil: (it) => it.expires = "soon",
    code: 65,
    says: /"expires" of it is not a time/,
  },
  "another guest": { spoil: (it) => it.guest.uuid = crypto.randomUUID(), code: 65, says: /is stale/ },
  "another name": { spoil: (it) => it.guest.name = "vm2", says: /guest "vm2"/ },
  "another id": { spoil: (it) => it.guest.id = "7" },
  "another action on a lost lock": { spoil: (it) => it.guest.onLockFailure = "kill" },
  "an action that is none": { spoil: (it) => it.guest.onLockFailure = "?", code: 65, says: /no ticket/ },
  "a guest that is none": { spoil: (it) => it.guest = "vm1", code: 65, says: /no ticket/ },
  "another lockspace": {
    spoil: (it) => it.lockspace = crypto.randomUUID(),
    code: 65,
    says: /another lockspace/,
  },
  "another source": { spoil: (it) => it.source.id = "host-c" },
  "another name of the source": { spoil: (it) => it.source.name = "host-c" },
  "another destination": { spoil: (it) => it.destination = "ssh://host-c" },
  "another lease on itself": { spoil: (it) => it.leaseKeys = [OTHER_KEY], code: 65, says: /is stale/ },
  "no lease on itself": { spoil: (it) => it.leaseKeys = [] },
  "a key that is none": { spoil: (it) => it.leaseKeys = ["x"], code: 65, says: /a key is not 64/ },
  "another disk": { spoil: (it) => it.resources[0].name += "2" },
  "another access": { spoil: (it) => it.resources[0].access = "shared" },
  "another kind of resource": {
    spoil: (it) => Object.assign(it.resources[0], { type: "lease", name: "a:b" }),
  },
  "fewer keys": { spoil: (it) => it.resources[0].keys.pop() },
  "another key": { spoil: (it) => it.resources[0].keys[0] = OTHER_KEY },
  "no resources": { spoil: (it) => it.resources = [] },
  "no host's own keys": { spoil: (it) => it.hostKeys = [] },
  "more host's own keys": { spoil: (it) => it.hostKeys = it.resources[0].keys },
  "another generation": { spoil: (it) => it.grants[0].generation++ },
  "another mode": { spoil: (it) => it.grants[0].mode = "shared" },
  "no grants": { spoil: (it) => delete it.grants },
};

Deno.test(`a ticket in which one thing is changed is refused, in each of ${Object.keys(SPOILT).length} ways`, async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const guest = await startSleep(source, "vm1", ["--disk", await world.disk("d")]);
  await world.disk("d2");
  const text = await Deno.readTextFile(await world.prepare());
  for (const [what, { spoil, code = 77, says = CHANGED }] of Object.entries(SPOILT)) {
    const ticket = JSON.parse(text);
    spoil(ticket);
    const file = `${source.directory}/spoilt`;
    await Deno.writeTextFile(file, JSON.stringify(ticket));
    const comeIn = () =>
      destination.run(["migrate", "in", "--ticket", file, "--", "touch", `${world.images}/came`]);
    await assertChangesNothing(world, comeIn, { code, says }).catch((error) => {
      throw new Error(`${what}: ${error.message}`);
    });
  }
  // Spaces and the order of fields are no part of it, and the right one is good still.
  const came = await comeInSleep(
    destination,
    await fileWith(world, JSON.stringify(JSON.parse(text), null, 2)),
  );
  assert.deepEqual([guest, came].map(({ pid }) => slotsText([pid], lockspace)), ["4 a", "1 ab, 3 b"]);
});

async function fileWith(world: MigrationWorld, text: string): Promise<string> {
  const file = `${world.destination.directory}/ticket`;
  await Deno.writeTextFile(file, text);
  return file;
}

Deno.test("what is no ticket is refused, and what comes after one on standard input is the guest's", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination } = world;
  await startSleep(source, "vm1", ["--disk", await world.disk("d")]);
  const ticket = await world.prepare();
  const text = await Deno.readTextFile(ticket);
  const comeIn = (file: string) => () => destination.run(["migrate", "in", "--ticket", file, "--", "true"]);
  for (const bad of [text.slice(0, 200), "", "no ticket", "[]", "null", "{}", text + text, "\u0000"]) {
    const file = await fileWith(world, bad);
    await assertChangesNothing(world, comeIn(file), { code: 65, says: /is no ticket of a migration/ });
  }
  await assertChangesNothing(world, comeIn(world.images), { code: 65, says: /is no small regular file/ });
  await assertChangesNothing(world, comeIn("/nowhere"), {
    code: 65,
    says: /ticket \/nowhere does not exist/,
  });
  const fromInput = (stdin: string) =>
    destination.run(["migrate", "in", "--ticket", "-", "--", "cat"], { stdin });
  await assertChangesNothing(world, () => fromInput("nonsense\n"), {
    code: 65,
    says: /standard input is no ticket/,
  });
  await assertChangesNothing(world, () => fromInput(""), { code: 65, says: /standard input is no ticket/ });
  const { code, stdout, stderr } = await fromInput(text.trim() + "\nthe rest\nof it\n");
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: "the rest\nof it\n", stderr: "" });
});

Deno.test("a ticket is good once, for a time, and only as long as what it was made for", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination } = world;
  const disk = await world.disk("d");
  await startSleep(source, "vm1", ["--disk", disk]);
  const comeIn = (ticket: string) => () =>
    destination.run(["migrate", "in", "--ticket", ticket, "--", "true"]);
  const refuse = (ticket: string, code: number, says: RegExp) =>
    assertChangesNothing(world, comeIn(ticket), { code, says });

  const expired = await world.prepare("vm1", source, ["--expires", "1ms"]);
  await refuse(expired, 65, /has expired \(/);
  assert.equal((await json(source, ["migrate", "status"])).migrations[0].next.action, "cancel");
  const overtaken = await world.prepare();
  const current = await world.prepare();
  await refuse(overtaken, 77, CHANGED);
  await done(source, ["migrate", "cancel", "vm1"]);
  await refuse(current, 65, /is stale: its migration was cancelled or completed/);

  const used = await world.prepare();
  const came = await comeInSleep(destination, used);
  await refuse(used, 65, /was used already \(process \d+ on /);
  await came.kill();
  await refuse(used, 65, /was used already/);
  const again = await source.run(["migrate", "prepare", "vm1", "--to", "ssh://host-b"]);
  assert.equal(again.code, 75, again.stderr);
  await done(destination, ["migrate", "cancel", "vm1"]);
  await done(source, ["migrate", "cancel", "vm1"]);
  await refuse(used, 65, /is stale/);

  // Of several that try at once, one comes in.
  const wanted = await world.prepare();
  const tries = await Promise.all(
    Array.from(
      { length: 5 },
      () => destination.run(["migrate", "in", "--ticket", wanted, "--", "sleep", "1"]),
    ),
  );
  assert.equal(tries.filter(({ code }) => code === 0).length, 1, JSON.stringify(tries));
  for (const { code, stderr } of tries) assert.ok([0, 65, 75].includes(code), stderr);
});

Deno.test("a ticket is for one lockspace, and for the same disks on storage that both hosts have", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, images } = world;
  const [disk, other] = [await world.disk("d"), await world.disk("other")];
  await startSleep(source, "vm1", ["--disk", disk]);
  await startSleep(source, "vm2", ["--disk", other]);
  const ticket = await world.prepare();
  const comeIn = (...options: string[]) => () =>
    destination.run(["migrate", "in", "--ticket", ticket, ...options, "--", "true"]);
  const refuse = (options: string[], code: number, says: RegExp) =>
    assertChangesNothing(world, comeIn(...options), { code, says });

  await refuse(["--map", "nonsense"], 64, /--map "nonsense" is not OLD=NEW/);
  await refuse(["--map", `=${disk}`], 64, /is not OLD=NEW/);
  await refuse(["--map", `/nowhere=${images}`], 65, /no disk of the guest is called so; it has: /);
  await refuse(
    ["--map", `${disk}=${other}`],
    65,
    /d \(exclusive\) moves with guest "vm1" and is not the same as disk .*other \(exclusive\) here/,
  );
  await refuse(["--map", `${disk}=${images}/missing`], 65, /missing/);
  const strange = await destination.disk("strange");
  await refuse(["--map", `${disk}=${strange}`], 65, /is not the same as disk .*strange/);
  const copy = `${images}/copy`;
  await Deno.copyFile(disk, copy);
  await refuse(["--map", `${disk}=${copy}`], 65, /must be on storage that both hosts share/);

  await declareStorage(destination, images, "san2");
  await refuse([], 65, /is not the same here .*; it must be on storage that both hosts share/);
  await Deno.writeTextFile(destination.configFile, "");
  await refuse([], 65, /is not the same here/);
  await declareStorage(destination, images);
  const elsewhere = `${destination.directory}/lockspace`;
  await done(destination, ["init", elsewhere]);
  const away = () =>
    destination.run(["--lockspace", elsewhere, "migrate", "in", "--ticket", ticket, "--", "true"]);
  await assertChangesNothing(world, away, { code: 65, says: /is for another lockspace/ });

  const second = await world.prepare("vm2");
  const swapped = () =>
    destination.run(["migrate", "in", "--ticket", second, "--map", `${other}=${disk}`, "--", "true"]);
  await assertChangesNothing(world, swapped, { code: 65, says: /is not the same as disk/ });
  await comeInSleep(destination, ticket);
});
