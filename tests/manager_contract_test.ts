import assert from "node:assert/strict";
import fc from "fast-check";
import { COMMANDS } from "../lib/cli/commands.ts";
import { parseCommandLine } from "../lib/cli/parse.ts";
import type { DriverDefinition } from "../lib/driver/contract.ts";
import { type ErrorCode, LockvisorError } from "../lib/errors.ts";
import { identity } from "../lib/identity/key.ts";
import { parseDisk, parseLease } from "../lib/identity/specification.ts";
import type { LockManager } from "../lib/manager/lock_manager.ts";
import { loadPlugin, Plugin } from "../lib/manager/plugin.ts";
import { driverNamed, driverNames } from "../lib/manager/registry.ts";
import { driverConfigOf, managerOptionsOf, recordingDriver } from "./support/drivers.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

const UUID = "b1111111-2222-4333-8444-555555555555";

/** What sets drivers apart that their declared capabilities do not tell. A new driver must be added here. */
const EXCLUDES: Record<string, boolean> = { "sync-manager": true, nop: false };

/** Phases of a manager, and how to get there from the start. */
const PHASES = ["open", "acquired", "shut-down", "freed"] as const;
type Phase = typeof PHASES[number];

/** The calls of the contract, each in a form that succeeds where it is allowed. */
const CALLS: Record<string, (manager: LockManager) => unknown> = {
  setParameter: (manager) => manager.setParameter("id", "7"),
  registerResource: (manager) => manager.registerResource("lease", "cluster:more", "shared"),
  forecast: (manager) => manager.forecast(),
  acquireObject: (manager) => manager.acquireObject(),
  handOver: (manager) => manager.handOver(),
  child: (manager) => manager.child(),
  shutdown: (manager) => manager.shutdown(),
  supervisorPath: (manager) => manager.supervisorPath(),
  supervisorArgs: (manager) => manager.supervisorArgs(),
  free: (manager) => manager.free(),
};

/** Where each call is allowed: written down once more, on purpose. */
const ALLOWED: Record<keyof typeof CALLS, Phase[]> = {
  setParameter: ["open"],
  registerResource: ["open"],
  forecast: ["open"],
  acquireObject: ["open"],
  handOver: ["acquired"],
  child: ["acquired"],
  shutdown: ["acquired"],
  supervisorPath: ["open", "acquired"],
  supervisorArgs: ["open", "acquired"],
  free: ["open", "acquired", "shut-down"],
};

/** A manager of guest vm1 in a phase. */
async function managerIn(phase: Phase, plugin: Plugin, world: World): Promise<LockManager> {
  const manager = plugin.newManager("domain", "start", managerOptionsOf(world));
  manager.setParameter("name", "vm1");
  if (phase === "acquired" || phase === "shut-down") await manager.acquireObject();
  if (phase === "shut-down") await manager.shutdown();
  if (phase === "freed") manager.free();
  return manager;
}

/** What an action is refused with; its message fits `says`. */
async function refusal(action: () => unknown, says: RegExp): Promise<ErrorCode> {
  try {
    await action();
  } catch (error) {
    assert.ok(error instanceof LockvisorError, `no LockvisorError: ${error}`);
    assert.match(error.message, says);
    return error.code;
  }
  throw new assert.AssertionError({ message: `not refused; wanted ${says}` });
}

function outOfOrder(call: string, phase: string): RegExp {
  return new RegExp(`^${call}: .*"${phase}"`);
}

/** The drivers that are built in, and one that shows what a manager asks of its driver. */
function definitions(): DriverDefinition[] {
  return [...driverNames().map(driverNamed), recordingDriver([])];
}

for (const definition of definitions()) {
  for (const phase of PHASES) {
    Deno.test(`${definition.name}: in phase ${phase} every call is done, or refused by its name and the phase`, async () => {
      await using world = await World.create();
      const plugin = new Plugin(definition, driverConfigOf(world));
      for (const [call, make] of Object.entries(CALLS)) {
        const manager = await managerIn(phase, plugin, world);
        if (!ALLOWED[call]!.includes(phase)) {
          assert.equal(await refusal(() => make(manager), outOfOrder(call, phase)), "usage");
          if (phase !== "freed") manager.free(); // as if the refused call had not been
        } else {
          if (call !== "handOver" || definition.name === "recording") await make(manager);
          if (call !== "free") manager.free();
        }
        assert.equal(await refusal(() => manager.free(), outOfOrder("free", "freed")), "usage");
      }
      plugin.unload();
    });
  }
}

const WRONG_PARAMETERS: [string, unknown, RegExp][] = [
  ["colour", "red", /setParameter: unknown parameter "colour"; there are: id, uuid, name/],
  ["__proto__", "x", /unknown parameter "__proto__"/],
  ["toString", "x", /unknown parameter "toString"/],
  ["", "x", /unknown parameter ""/],
  ["name", 7, /name 7 is not 1 to 255 printable characters/],
  ["name", "", /name "" is not/],
  ["name", "a/b", /name "a\/b" is not/],
  ["name", "a\nb", /name "a\\nb" is not/],
  ["name", "x".repeat(256), /name "x{80}…" is not/],
  ["name", null, /name null is not/],
  ["uuid", "short", /"short" is not a UUID/],
  ["uuid", 7, /uuid 7 is not a UUID/],
  ["uuid", "00000000-0000-0000-0000-000000000000", /nil UUID/],
  ["id", "", /id "" is not/],
  ["id", 7, /id 7 is not/],
  ["pid", 0, /pid 0 is not a whole number above 0/],
  ["pid", 1.5, /pid 1.5 is not/],
  ["pid", "7", /pid "7" is not/],
  ["uri", "not a uri", /uri "not a uri" is not a URI/],
  ["qmp", "", /qmp "" is not the path of a unix socket/],
  ["qmp", "a\0b", /qmp .* is not the path/],
  ["on-lock-failure", "explode", /on-lock-failure "explode" is not pause, kill or ignore/],
  ["command", "sleep 60", /command "sleep 60" is not a list of words/],
  ["command", ["sleep", 60], /command .* is not a list of words/],
];

const WRONG_RESOURCES: [unknown, unknown, unknown, RegExp][] = [
  ["floppy", "/dev/zero", "exclusive", /registerResource: .*"floppy"/],
  ["disk", "a", "writable", /registerResource: .*"writable"/],
  ["disk", "a", undefined, /registerResource: .*access/],
  ["disk", 7, "exclusive", /registerResource: .*7/],
  ["disk", "", "exclusive", /disk "" has no path/],
  ["lease", "cluster", "exclusive", /lease "cluster" has no colon/],
];

for (const name of driverNames()) {
  const { capabilities } = driverNamed(name);
  const excludes = EXCLUDES[name];

  Deno.test(`${name}: says here whether it excludes`, () => {
    assert.equal(typeof excludes, "boolean", `add "${name}" to EXCLUDES`);
  });

  Deno.test(`${name}: wrong parameters are refused by name, and may be corrected`, async () => {
    await using world = await World.create();
    const plugin = await loadPlugin(name, driverConfigOf(world));
    await using manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    for (const [parameter, value, says] of WRONG_PARAMETERS) {
      const code = await refusal(() => manager.setParameter(parameter as "name", value as string), says);
      assert.equal(code, "usage", parameter);
    }
    assert.equal(await refusal(() => manager.acquireObject(), /the guest has no name/), "usage");
    manager.setParameter("name", "vm1");
    manager.setParameter("uuid", UUID.toUpperCase());
    manager.setParameter("pid", Deno.pid);
    manager.setParameter("uri", "qemu+ssh://hv2/system");
    for (const parameter of ["name", "uuid"] as const) {
      const twice = () => manager.setParameter(parameter, parameter === "name" ? "vm2" : UUID);
      assert.equal(
        await refusal(twice, new RegExp(`setParameter: parameter "${parameter}" is set already`)),
        "usage",
      );
    }
    await manager.acquireObject();
    const [entry] = managerOptionsOf(world).store.list();
    assert.ok(entry?.kind === "record");
    assert.deepEqual([entry.record.name, entry.record.uuid], ["vm1", UUID]);
  });

  Deno.test(`${name}: wrong resources are refused, and nothing of them is kept`, async () => {
    await using world = await World.create();
    await world.disk("a");
    const plugin = await loadPlugin(name, driverConfigOf(world));
    await using manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    manager.setParameter("name", "vm1");
    for (const [type, resource, access, says] of WRONG_RESOURCES) {
      const register = () => manager.registerResource(type as "disk", resource as string, access as "shared");
      assert.equal(await refusal(register, says), "usage");
    }
    const missing = () => manager.registerResource("disk", "none", "exclusive");
    assert.equal(await refusal(missing, /disk \/.*\/none does not exist/), "data");
    assert.deepEqual(manager.forecast().filter(({ resource }) => resource.type === "disk"), []);
  });

  Deno.test(`${name}: what it does not declare is refused before anything happens`, async () => {
    await using world = await World.create();
    const plugin = await loadPlugin(name, driverConfigOf(world));
    assert.equal(plugin.name, name);
    assert.deepEqual(plugin.capabilities, capabilities);
    if (!capabilities.migration) {
      const migrate = () => plugin.newManager("domain", "migrate", managerOptionsOf(world));
      assert.equal(
        await refusal(migrate, new RegExp(`mode "migrate": plugin ${name} does not offer migration`)),
        "unavailable",
      );
    }
    plugin.unload();
  });

  Deno.test(`${name}: cannot be unloaded while a manager is open, nor twice, nor used afterwards`, async () => {
    await using world = await World.create();
    const plugin = await loadPlugin(name, driverConfigOf(world));
    const [one, two] = [1, 2].map(() => plugin.newManager("domain", "start", managerOptionsOf(world)));
    const open = (count: number) => new RegExp(`unload: plugin ${name} has ${count} open manager`);
    assert.equal(await refusal(() => plugin.unload(), open(2)), "usage");
    one!.free();
    assert.equal(await refusal(() => plugin.unload(), open(1)), "usage");
    await two![Symbol.asyncDispose]();
    plugin.unload();
    assert.equal(await refusal(() => plugin.unload(), /unload: plugin .* is unloaded/), "usage");
    const late = () => plugin.newManager("domain", "start", managerOptionsOf(world));
    assert.equal(await refusal(late, /newManager: plugin .* is unloaded; load it again/), "usage");
  });

  Deno.test(`${name}: acquires all for this process, and gives all back`, async () => {
    await using world = await World.create();
    const disk = await world.disk("a");
    const plugin = await loadPlugin(name, driverConfigOf(world));
    const { store } = managerOptionsOf(world);
    for (const end of ["shutdown", "free", "dispose"]) {
      const manager = plugin.newManager("domain", "start", managerOptionsOf(world));
      manager.setParameter("name", "vm1");
      manager.registerResource("disk", disk, "exclusive");
      manager.registerResource("lease", "cluster:db", "exclusive");
      const verdicts = manager.forecast().map(({ verdict }) => verdict);
      assert.deepEqual(new Set(verdicts), new Set([excludes ? "free" : "skipped"]));
      await manager.acquireObject();
      assert.equal(manager.child(), Deno.pid);
      assert.equal(isLeaseHeld(world, "cluster:db"), excludes);
      assert.equal(store.list().length, 1);
      if (end === "shutdown") await manager.shutdown();
      if (end === "dispose") await manager[Symbol.asyncDispose]();
      else manager.free();
      assert.deepEqual(store.list(), [], end);
      await until(`${end} frees the locks`, () => !isLeaseHeld(world, "cluster:db"));
    }
    plugin.unload();
  });

  Deno.test(`${name}: a second manager for the same disk`, async () => {
    await using world = await World.create();
    const disk = await world.disk("a");
    const plugin = await loadPlugin(name, driverConfigOf(world));
    const managers = ["vm1", "vm2", "vm3"].map((guest) => {
      const manager = plugin.newManager("domain", "start", managerOptionsOf(world));
      manager.setParameter("name", guest);
      manager.registerResource("disk", disk, "exclusive");
      return manager;
    });
    const results = await Promise.allSettled(managers.map((manager) => manager.acquireObject()));
    const winners = managers.filter((_, index) => results[index]!.status === "fulfilled");
    assert.equal(winners.length, excludes ? 1 : 3);
    for (const [index, result] of results.entries()) {
      if (result.status === "fulfilled") continue;
      assert.ok(result.reason instanceof LockvisorError);
      assert.match(result.reason.message, /^disk .*\/a is locked by guest "vm\d" \(pid \d+/);
      assert.equal(result.reason.code, "locked");
      const holder = result.reason.details.holder as { name: string; pid: number };
      assert.deepEqual(holder.pid, Deno.pid);
      // The refused manager is open as before, and gets its turn.
      for (const manager of winners.splice(0)) manager.free();
      await managers[index]!.acquireObject();
      managers[index]!.free();
    }
    for (const manager of winners) manager.free();
    plugin.unload();
  });

  Deno.test(`${name}: while it acquires, no second call gets between`, async () => {
    await using world = await World.create();
    const plugin = await loadPlugin(name, driverConfigOf(world));
    const manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    manager.setParameter("name", "vm1");
    const acquiring = manager.acquireObject();
    // All in the same turn: nothing of the acquiring has come back yet.
    assert.throws(() => manager.free(), { message: /^free: not possible in state "acquiring"/ });
    assert.throws(() => manager.setParameter("id", "7"), { message: /^setParameter: not possible in state/ });
    assert.throws(() => plugin.unload(), { message: /open manager/ });
    const second = refusal(
      () => manager.acquireObject(),
      /^acquireObject: not possible in state "acquiring"/,
    );
    assert.equal(await second, "usage");
    await acquiring;
    manager.free();
    plugin.unload();
    assert.deepEqual(managerOptionsOf(world).store.list(), []);
  });

  Deno.test(`${name}: supervisorPath and supervisorArgs start the guest that the manager was told of`, async () => {
    await using world = await World.create();
    await using elsewhere = await World.create({ hostId: "elsewhere" });
    const disk = await world.disk("a,b");
    const plugin = await loadPlugin(name, driverConfigOf(world));
    await using manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    manager.setParameter("name", "-vm 1");
    manager.setParameter("uuid", UUID);
    manager.setParameter("id", "7");
    manager.setParameter("qmp", `${world.directory}/qmp`);
    manager.setParameter("on-lock-failure", "kill");
    manager.registerResource("disk", disk, "readonly");
    manager.registerResource("lease", "cluster:a,b", "shared");
    assert.equal(
      manager.supervisorPath(),
      Deno.execPath(),
      "the program that runs: lockvisor, where it is compiled",
    );
    // The management tool's environment may lead elsewhere; the guest must land in the manager's lockspace.
    const guest = await elsewhere.startRunning([...manager.supervisorArgs(), "sleep", "60"]);
    const { guests } = JSON.parse((await world.run(["status", "--json"])).stdout);
    assert.deepEqual(JSON.parse((await elsewhere.run(["status", "--json"])).stdout), { guests: [] });
    const keys = (some: { keys: string[] }[]) => some.map((resource) => resource.keys);
    assert.deepEqual(guests, [{
      uuid: UUID,
      name: "-vm 1",
      id: "7",
      state: "running",
      plugin: name,
      pid: guest.pid,
      since: guests[0].since,
      resources: [
        {
          type: "disk",
          name: disk,
          access: "readonly",
          keys: keys(guests[0].resources)[0],
          locked: excludes,
        },
        {
          type: "lease",
          name: "cluster:a,b",
          access: "shared",
          keys: keys(guests[0].resources)[1],
          locked: excludes,
        },
      ],
    }]);
    const entry = managerOptionsOf(world).store.read(UUID);
    assert.ok(entry?.kind === "record");
    assert.deepEqual([entry.record.qmp, entry.record.onLockFailure], [`${world.directory}/qmp`, "kill"]);
    const blocked = await refusal(() => manager.acquireObject(), /is (locked by|running already)/);
    assert.equal(blocked, "locked");
  });
}

/** Whether anybody has the first slot of a lease, by trying. */
function isLeaseHeld(world: World, lease: string): boolean {
  const path = `${world.lockspace}/${identity(`lease:${lease}`).key}.a`;
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path, { read: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
  using _closed = file;
  return !file.tryLockSync(true);
}

Deno.test("an unknown plugin is unavailable, and the known ones are named", async () => {
  await using world = await World.create();
  for (const name of ["etcd", "", "__proto__", "constructor"]) {
    const says = new RegExp(`there is no plugin "${name}"; there are: ${driverNames().join(", ")}`);
    assert.equal(await refusal(() => loadPlugin(name, driverConfigOf(world)), says), "unavailable");
  }
});

Deno.test("a manager asks its driver in order, and gives back what it cannot record", async () => {
  await using world = await World.create();
  const log: string[] = [];
  const plugin = new Plugin(recordingDriver(log), driverConfigOf(world));
  const manager = await managerIn("acquired", plugin, world);
  manager.handOver();
  await manager.shutdown();
  manager.free();
  assert.deepEqual(log.splice(0), ["acquire", "makeInheritable", "giveBack"]);
  await world.startRunning(["run", "--name", "vm1", "--uuid", UUID, "--", "sleep", "60"]);
  const second = plugin.newManager("domain", "start", managerOptionsOf(world));
  second.setParameter("name", "vm1");
  assert.equal(await refusal(() => second.acquireObject(), /names are unique on a host/), "locked");
  assert.deepEqual(log, ["acquire", "giveBack"]);
  second.free();
});

Deno.test("handed over locks are in the process that is started next, and outlive this one", async () => {
  await using world = await World.create();
  // In a process of its own: guests of tests that run beside would inherit the descriptors here.
  const script = new URL("./support/hand_over.ts", import.meta.url).pathname;
  const args = ["run", "-A", "--no-check", script, world.lockspace, world.runtimeDir, world.hostId];
  const { code, stdout, stderr } = await world.execute(Deno.execPath(), args, {
    env: { DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno` },
  });
  assert.equal(code, 0, stderr);
  const heir = Number(stdout);
  try {
    assert.ok(isLeaseHeld(world, "cluster:db"), "held after its maker has ended");
  } finally {
    Deno.kill(heir, "SIGKILL");
  }
  await until("the heir has ended", () => !isLeaseHeld(world, "cluster:db"));
});

/** Ways into every phase; by chance alone few sequences would get far. */
const beginnings = fc.constantFrom(
  [],
  ["setName", "registerResource"],
  ["setName", "registerResource", "acquireObject"],
  ["setName", "acquireObject", "shutdown"],
  ["free"],
);

/** What is known of a manager by its calls alone. */
interface Model {
  phase: Phase;
  named: boolean;
}

/** Whether a call succeeds, by the model, which it changes. */
function foresee(call: string, model: Model): "done" | "out of order" | "refused" {
  if (call === "wrongParameter") return model.phase === "open" ? "refused" : "out of order";
  const contractCall = call === "setName" ? "setParameter" : call;
  if (!ALLOWED[contractCall]!.includes(model.phase)) return "out of order";
  const needsName = ["forecast", "acquireObject", "supervisorArgs"].includes(call);
  if (call === "setName" ? model.named : needsName && !model.named) return "refused";
  if (call === "setName") model.named = true;
  if (call === "acquireObject") model.phase = "acquired";
  if (call === "shutdown") model.phase = "shut-down";
  if (call === "free") model.phase = "freed";
  return "done";
}

async function perform(call: string, manager: LockManager, lease: string): Promise<string> {
  try {
    if (call === "setName") manager.setParameter("name", lease);
    else if (call === "wrongParameter") manager.setParameter("pid", -1);
    else if (call === "registerResource") manager.registerResource("lease", `test:${lease}`, "exclusive");
    else await CALLS[call]!(manager);
    return "done";
  } catch (error) {
    assert.ok(error instanceof LockvisorError, String(error));
    assert.equal(error.code, "usage", error.message);
    return /^\w+: not possible in state "/.test(error.message) ? "out of order" : "refused";
  }
}

const SEQUENCE_CALLS = [
  "setName",
  "wrongParameter",
  ...Object.keys(CALLS).filter((call) => call !== "setParameter"),
];

for (const definition of definitions()) {
  const isReal = definition.name !== "recording";
  const calls = SEQUENCE_CALLS.filter((call) => call !== "handOver" || !isReal);
  Deno.test(`${definition.name}: any sequence of calls goes as the phases say`, async () => {
    await using world = await World.create();
    const plugin = new Plugin(definition, driverConfigOf(world));
    const { store } = managerOptionsOf(world);
    let sequences = 0;
    await fc.assert(
      fc.asyncProperty(
        beginnings,
        fc.array(fc.constantFrom(...calls), { maxLength: 8 }),
        async (way, rest) => {
          const sequence = [...way, ...rest];
          const guest = `guest${sequences++}`;
          const model: Model = { phase: "open", named: false };
          const manager = plugin.newManager("domain", "start", managerOptionsOf(world));
          let registered = false;
          for (const call of sequence) {
            const wanted = foresee(call, model);
            assert.equal(await perform(call, manager, guest), wanted, call);
            registered ||= call === "registerResource" && wanted === "done";
            const acquired = model.phase === "acquired";
            assert.equal(store.list().length, acquired ? 1 : 0, `records after ${call}`);
            const isHeld = acquired && registered && EXCLUDES[definition.name] === true;
            if (isHeld) assert.ok(isLeaseHeld(world, `test:${guest}`), `held after ${call}`);
            else await until(`free after ${call}`, () => !isLeaseHeld(world, `test:${guest}`));
          }
          if (model.phase !== "freed") manager.free();
          assert.deepEqual(store.list(), []);
        },
      ),
      { numRuns: isReal ? 60 : 200 },
    );
    plugin.unload();
  });
}

Deno.test("supervisorArgs are read back by the command line as they were meant", async () => {
  await using world = await World.create();
  const plugin = new Plugin(recordingDriver([]), driverConfigOf(world));
  const word = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 });
  const name = word.filter((text) => text.trim() !== "" && !/[/\p{Cc}\u2028\u2029\ufffd]/u.test(text));
  const id = fc.stringMatching(/^[A-Za-z0-9_.:-]{1,64}$/);
  const qmp = word.filter((text) => !text.includes("\0"));
  const lease = fc.tuple(fc.stringMatching(/^[A-Za-z0-9_.-]{1,64}$/), fc.stringMatching(/^[ -~]{1,40}$/));
  const access = fc.constantFrom("exclusive" as const, "shared" as const, "readonly" as const);
  const action = fc.constantFrom("pause" as const, "kill" as const, "ignore" as const);
  const guests = fc.record({
    name,
    id,
    qmp,
    action,
    leases: fc.array(fc.tuple(lease, access), { maxLength: 4 }),
  });
  await fc.assert(fc.asyncProperty(guests, async (guest) => {
    await using manager = plugin.newManager("domain", "start", managerOptionsOf(world));
    manager.setParameter("name", guest.name);
    manager.setParameter("id", guest.id);
    manager.setParameter("qmp", guest.qmp);
    manager.setParameter("on-lock-failure", guest.action);
    const leases = guest.leases.map(([parts, access]) => ({ name: parts.join(":"), access }));
    for (const { name, access } of leases) manager.registerResource("lease", name, access);
    const request = parseCommandLine([...manager.supervisorArgs(), "qemu", "--name", "x"], COMMANDS);
    assert.ok(request.kind === "run" && request.command.name === "run");
    const { options, userCommand } = request.invocation;
    assert.deepEqual(userCommand, ["qemu", "--name", "x"]);
    assert.equal(options.text("name"), guest.name);
    assert.equal(options.text("id"), guest.id);
    assert.equal(options.text("qmp"), guest.qmp);
    assert.equal(options.text("on-lock-failure"), guest.action);
    assert.deepEqual(
      options.texts("lease").map(parseLease).map(({ name, access }) => ({ name, access })),
      leases,
    );
    assert.deepEqual(options.texts("disk").map(parseDisk), []);
  }));
});
