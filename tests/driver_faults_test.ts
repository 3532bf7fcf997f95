import assert from "node:assert/strict";
import type { DriverDefinition } from "../lib/driver/contract.ts";
import { loadPlugin } from "../lib/manager/plugin.ts";
import { GRANT, moduleWith, writeModule } from "./support/driver_module.ts";
import { driverConfigOf, managerOptionsOf } from "./support/drivers.ts";
import { refusal } from "./support/refusal.ts";
import { type Answer, assertNotStarted, runBounded } from "./support/refused.ts";
import { World } from "./support/world.ts";

/** Modules that are no drivers, and what is said about them. */
const NO_DRIVERS: [string, string, RegExp][] = [
  ["throws", `throw new Error("out of\\nlemons");`, /cannot be loaded: out of$/m],
  ["throws no error", `throw "a text";`, /cannot be loaded: a text$/m],
  ["does not parse", `export default {`, /cannot be loaded: /],
  ["imports what is not there", `import "./nowhere.js";`, /cannot be loaded: Module not found/],
  ["imports from elsewhere", `import "npm:nowhere@1.0.0";`, /cannot be loaded: /],
  ["exports nothing", ``, /is no driver: it has no default export that is an object; see docs\/plugins.md$/m],
  ["exports a text", `export default "driver";`, /no default export that is an object/],
  ["has no name", moduleWith({ name: null }), /its name is not 1 to 64 small letters, digits and "-"/],
  ["has a name with a slash", moduleWith({ name: "a/b" }), /its name is not/],
  ["has a name with a line break", moduleWith({ name: "a\nb" }), /its name is not/],
  ["has an empty name", moduleWith({ name: "" }), /its name is not/],
  ["has a long name", moduleWith({ name: "a".repeat(65) }), /its name is not/],
  ["has nothing to create", moduleWith({ create: "7" }), /"create" is not a function/],
  ["declares nothing", moduleWith({ capabilities: "null" }), /"capabilities" is not an object/],
  [
    "declares a third type",
    moduleWith({ capabilities: { resources: ["nic"] } }),
    /"resources" is not a list of/,
  ],
  ["declares no types", moduleWith({ capabilities: { resources: "disk" } }), /"resources" is not a list of/],
  ["is not sure", moduleWith({ capabilities: { pause: "yes" } }), /capability "pause" is not true or false/],
  [
    "leaves one out",
    moduleWith({ capabilities: `{ resources: [] }` }),
    /capability "hotplug" is not true or/,
  ],
  [
    "cannot let a guest leave",
    moduleWith({ capabilities: { migration: true } }),
    /declares "migration" and has no method "makeTicket"/,
  ],
  [
    "cannot take away what a migration left",
    moduleWith({
      capabilities: { migration: true },
      create:
        `() => ({ acquire() {}, makeTicket() {}, offer() {}, acquireIncoming() {}, takeOver() {}, withdraw() {},
        otherSide() {} })`,
    }),
    /declares "migration" and has no method "leave"/,
  ],
  [
    "declares hotplug of nothing",
    moduleWith({ capabilities: { hotplug: true } }),
    /"hotplug" and no resources/,
  ],
  [
    "cannot plug",
    moduleWith({ capabilities: { resources: ["disk"], hotplug: true } }),
    /is no driver: it declares "hotplug" and has no method "adopt"; see docs\/plugins.md/,
  ],
  [
    "cannot resume",
    moduleWith({ capabilities: { pause: true } }),
    /declares "pause" and has no method "giveUp"/,
  ],
  [
    "has no keys",
    moduleWith({ capabilities: { resources: ["disk"] } }),
    /locks resources and has no method "keysOf"/,
  ],
  ["cannot acquire", moduleWith({ create: "() => ({})" }), /what "create" gave has no method "acquire"/],
  ["creates nothing", moduleWith({ create: "() => null" }), /is no driver: "create" gave no object/],
  ["creates later", moduleWith({ create: "async () => ({})" }), /what "create" gave has no method "acquire"/],
];

for (const [what, text, says] of NO_DRIVERS) {
  Deno.test(`a plugin that ${what} is unavailable, and nothing is locked`, async () => {
    await using world = await World.create();
    const file = await writeModule(world, text);
    await assertNotStarted(world, ["--plugin", file, "--name", "vm1"], { code: 69, says });
  });
}

/** Drivers that make a mistake when they are asked. */
const MISTAKES: [string, string, Answer][] = [
  ["throws", `() => { throw new Error("out of lemons") }`, {
    code: 70,
    says: /plugin \S+driver.js: "acquire" failed: out of lemons$/m,
  }],
  [
    "rejects with a code of ours",
    `async () => { throw Object.assign(new Error("no server"), { code: "config" }) }`,
    {
      code: 78,
      says: /plugin \S+driver.js: no server$/m,
    },
  ],
  ["meets a file that is not there", `async () => Deno.readTextFile("/nowhere")`, {
    code: 74,
    says: /"acquire" of plugin \S+driver.js: no such file or directory$/m,
  }],
  ["grants nothing", `async () => ({ outcome: "granted" })`, {
    code: 70,
    says: /what "acquire" gave cannot be used: field "hold" of it is not an object with a method "giveBack"/,
  }],
  ["gives nothing", `async () => {}`, { code: 70, says: /cannot be used: it is not a JSON object/ }],
  ["gives a key that is none", GRANT.replace("leaseKeys: []", `leaseKeys: ["key"]`), {
    code: 70,
    says: /cannot be used: a key is not 64 hexadecimal digits/,
  }],
  [
    "names a descriptor that is not open",
    GRANT.replace("locks: []", `locks: [{ key: "0".repeat(64), slots: { a: 999 } }]`),
    {
      code: 70,
      says: /descriptor 999 cannot be kept on exec; nothing was started/,
    },
  ],
  ["refuses without a reason", `async () => ({ outcome: "refused" })`, {
    code: 70,
    says: /"refusal" is not a JSON object/,
  }],
];

for (const [what, acquire, answer] of MISTAKES) {
  Deno.test(`a driver that ${what} starts no guest and leaves nothing behind`, async () => {
    await using world = await World.create();
    const file = await writeModule(world, moduleWith({ create: `() => ({ acquire: ${acquire} })` }));
    await world.run(["run", "--plugin", "nop", "--name", "vm0", "--", "true"]); // makes the directories
    await world.run(["status"]);
    const args = ["run", "--plugin", file, "--name", "vm1", "--", "touch", `${world.directory}/started`];
    const { code, stderr, stdout } = await runBounded(world, args);
    assert.deepEqual([code, stdout], [answer.code, ""], stderr);
    assert.match(stderr, answer.says);
    assert.equal((await world.run(["status"])).stdout, "no guests\n");
    await assert.rejects(Deno.stat(`${world.directory}/started`));
  });
}

Deno.test("a grant that cannot be used is given back", async () => {
  await using world = await World.create();
  const acquire = GRANT.replace("giveBack() {}", "giveBack() { globalThis.givenBack = true }")
    .replace("locks: []", `locks: [{ key: "k", slots: {} }]`);
  const file = await writeModule(world, moduleWith({ create: `() => ({ acquire: ${acquire} })` }));
  const plugin = await loadPlugin(file, driverConfigOf(world));
  await using manager = plugin.newManager("domain", "start", managerOptionsOf(world));
  manager.setParameter("name", "vm1");
  assert.equal(await refusal(() => manager.acquireObject(), /not 64 hexadecimal digits/), "internal");
  assert.equal((globalThis as { givenBack?: boolean }).givenBack, true);
});

/** A ticket that can be read, in JavaScript. */
const TICKET = `({ secret: "0".repeat(64), created: "2026-01-01T00:00:00Z", expires: "2026-01-01T00:00:00Z",
  guest: { uuid: "u", name: "vm1", id: null, onLockFailure: "pause" }, plugin: "p", lockspace: "l",
  source: { id: "hv1", name: "hv1" }, destination: "ssh://hv2", leaseKeys: [], resources: [], hostKeys: [], grants: [] })`;

/** What the methods of a migration give, and what is said about it. */
const MIGRATIONS: [method: string, gives: string, says: RegExp | "fine"][] = [
  ["makeTicket", TICKET, "fine"],
  ["makeTicket", `({})`, /what "makeTicket" gave cannot be used: "guest" is not a JSON object/],
  ["makeTicket", `({ ...${TICKET}, secret: "guess" })`, /its secret is not 64 hexadecimal digits/],
  ["makeTicket", `({ ...${TICKET}, expires: "soon" })`, /field "expires" of it is not a time/],
  ["makeTicket", `({ ...${TICKET}, leaseKeys: ["key"] })`, /a key is not 64 hexadecimal digits/],
  ["makeTicket", `(() => { throw new Error("no server") })()`, /"makeTicket" failed: no server/],
  [
    "acquireIncoming",
    `({ outcome: "granted" })`,
    /field "hold" of it is not an object with a method "giveBack"/,
  ],
  [
    "acquireIncoming",
    `({ outcome: "granted", hold: { locks: [], leaseKeys: [], unlocked: ["3"], giveBack() {} } })`,
    /an unlocked descriptor is not a number/,
  ],
  [
    "acquireIncoming",
    `({ outcome: "granted", hold: { locks: [], leaseKeys: [], unlocked: [3], giveBack() {} } })`,
    "fine",
  ],
  ["acquireIncoming", `({ outcome: "refused" })`, /"refusal" is not a JSON object/],
  ["takeOver", `undefined`, /what "takeOver" gave cannot be used: it is not a JSON object/],
  ["takeOver", `({ outcome: "withdrawn" })`, /field "outcome" of it is not taken, waiting or lost/],
  ["takeOver", `({ outcome: "taken", carriers: [{}], grants: [] })`, /field "kind" of a carrier is not/],
  ["takeOver", `({ outcome: "taken", carriers: [], grants: [{}] })`, /field "key" of a grant is not a text/],
  ["takeOver", `({ outcome: "taken", carriers: [], grants: [] })`, "fine"],
  ["takeOver", `({ outcome: "waiting", key: "k", holders: [] })`, /a key is not 64 hexadecimal digits/],
  [
    "takeOver",
    `({ outcome: "waiting", key: "0".repeat(64), holders: [7] })`,
    /a holder is not a JSON object/,
  ],
  ["withdraw", `({ outcome: "waiting" })`, /field "outcome" of it is not withdrawn, taken or lost/],
  ["withdraw", `({ outcome: "lost" })`, /field "key" of it is not a text/],
  ["withdraw", `({ outcome: "withdrawn", carriers: [], grants: [] })`, "fine"],
  ["withdraw", `({ outcome: "declined" })`, "fine"],
  ["otherSide", `({ held: "yes", holders: [] })`, /field "held" of it is not true, false or null/],
  ["otherSide", `({ held: null })`, /field "holders" of it is not an array/],
  ["otherSide", `({ held: null, holders: [] })`, "fine"],
];

for (const [method, gives, says] of MIGRATIONS) {
  Deno.test(`what a driver's "${method}" gives is looked at: ${says === "fine" ? gives.slice(0, 60) : says}`, async () => {
    await using world = await World.create();
    const methods = ["makeTicket", "offer", "acquireIncoming", "takeOver", "withdraw", "otherSide", "leave"]
      .map((name) => `async ${name}() { return ${name === method ? gives : "{}"} }`);
    const create = `() => ({ acquire: ${GRANT}, ${methods.join(", ")} })`;
    const file = await writeModule(world, moduleWith({ capabilities: { migration: true }, create }));
    const { driver } = await loadPlugin(file, driverConfigOf(world));
    const ask = async () => await (driver as unknown as Record<string, () => Promise<unknown>>)[method]!();
    if (says === "fine") assert.ok(await ask());
    else assert.equal(await refusal(ask, says), "internal");
  });
}

Deno.test("a driver's methods keep what they belong to, and what it leaves out is not known", async () => {
  await using world = await World.create();
  const create = `() => new (class { #own = "0".repeat(64); async acquire() {
    return { outcome: "granted", hold: { locks: [], leaseKeys: [this.#own], giveBack() {} } } } })()`;
  const { driver } = await loadPlugin(
    await writeModule(world, moduleWith({ create })),
    driverConfigOf(world),
  );
  const outcome = await driver.acquire(
    { uuid: "", name: "", id: null, qmp: null, onLockFailure: "pause" },
    [],
  );
  assert.ok(outcome.outcome === "granted");
  const key = "0".repeat(64);
  assert.deepEqual(outcome.hold.leaseKeys, [key]);
  assert.equal(driver.isHeld([key]), null);
  assert.equal(driver.isHeld([]), false);
  const claim = { pid: 1, kind: "guest" as const, locks: [{ key, slots: {} }] };
  assert.deepEqual(driver.evidence([claim]), [[{ key, held: null }]]);
  assert.deepEqual([driver.holdings(), driver.notedGuests([key])], [[], []]);
});

Deno.test("the compiler knows what a declared ability needs", () => {
  const acquire = () => Promise.reject(new Error("not called"));
  const abilities = { resources: [], migration: false } as const;
  const small: DriverDefinition = {
    name: "small",
    capabilities: { ...abilities, hotplug: false, pause: false },
    create: () => ({ acquire }),
  };
  // @ts-expect-error: `hotplug` is declared, and `plug` and its like are not there
  const wrong: DriverDefinition = {
    name: "wrong",
    capabilities: { ...abilities, hotplug: true, pause: false },
    create: () => ({ acquire }),
  };
  assert.notEqual(small, wrong);
});

/** What the watch of a driver gives, and how that is told. */
const WATCHES: [string, string, RegExp | "fine"][] = [
  ["gives no watch", `async () => 7`, /"watchLocks" gave no object/],
  ["fails at it", `async () => { throw new Error("no table") }`, /"watchLocks" failed: no table/],
  [
    "fails when it is asked",
    `async () => ({ doubts() { throw new Error("gone") } })`,
    /"doubts" failed: gone/,
  ],
  ["tells no list", `async () => ({ async doubts() { return {} } })`, /what "doubts" gave cannot be used/],
  [
    "tells of nobody",
    `async () => ({ async doubts() { return [{}] } })`,
    /what "doubts" gave cannot be used/,
  ],
  ["has a watch", `async () => ({ async doubts() { return [{ uuid: "u", cause: "lock" }] } })`, "fine"],
];

for (const [what, watchLocks, says] of WATCHES) {
  Deno.test(`a watch on locks of a driver that ${what} is looked at: ${says}`, async () => {
    await using world = await World.create();
    const create = `() => ({ acquire: ${GRANT}, watchLocks: ${watchLocks} })`;
    const { driver } = await loadPlugin(
      await writeModule(world, moduleWith({ create })),
      driverConfigOf(world),
    );
    const ask = async () => (await driver.watchLocks!()).doubts([]);
    if (says === "fine") assert.deepEqual(await ask(), [{ uuid: "u", cause: "lock" }]);
    else await refusal(ask, says);
  });
}

Deno.test("a driver that does not watch its locks has no watch", async () => {
  await using world = await World.create();
  const { driver } = await loadPlugin(await writeModule(world, moduleWith({})), driverConfigOf(world));
  assert.equal(driver.watchLocks, undefined);
});
