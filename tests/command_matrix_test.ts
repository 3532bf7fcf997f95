import assert from "node:assert/strict";
import {
  argumentsOf,
  assertDone,
  assertRefusedTwice,
  type Disks,
  GUEST_COMMANDS,
  type GuestCommand,
  kernelLocks,
  type Refusal,
} from "./support/guest_commands.ts";
import { World } from "./support/world.ts";

/*
 * Every command that takes a guest, against every guest that it must refuse. What a command does to a guest that runs
 * is in command_again_test.ts, whose guest it is in command_owner_test.ts.
 */

const [ONE, TWO] = ["11111111-2222-4333-8444-555555555555", "66666666-7777-4888-9999-aaaaaaaaaaaa"];
const ALL = Object.keys(GUEST_COMMANDS) as GuestCommand[];

/** How a command answers; a text is what standard output says with exit status 0. */
type Answer = Refusal | RegExp;

async function disksOf(world: World): Promise<Disks> {
  return { held: await world.disk("held"), spare: await world.disk("spare") };
}

function recordFile(world: World, uuid: string): string {
  return `${world.runtimeDir}/guests/${uuid}.json`;
}

/** Tries every command on a guest; those that are not in the table get the common answer. */
async function tryAll(
  world: World,
  guest: string,
  disks: Disks,
  common: Answer,
  { except = {}, between = () => Promise.resolve() }: {
    except?: Partial<Record<GuestCommand, Answer>>;
    between?: () => Promise<void>;
  } = {},
): Promise<void> {
  for (const command of ALL) {
    const answer = except[command] ?? common;
    const args = argumentsOf(command, guest, disks);
    if (answer instanceof RegExp) assert.match(await assertDone(world, args), answer, command);
    else await assertRefusedTwice(world, args, answer);
    await between();
  }
}

Deno.test("a guest that nobody knows: 65 from every command", async () => {
  await using world = await World.create();
  const disks = await disksOf(world);
  await world.startRunning(["run", "--name", "vm1", "--disk", disks.held, "--", "sleep", "600"]);
  for (const unknown of ["nobody", TWO, TWO.toUpperCase()]) {
    await tryAll(world, unknown, disks, {
      code: 65,
      says: new RegExp(`^lockvisor: no guest "${unknown}" runs on this host; see: lockvisor status\n$`),
    }, {
      except: {
        break: { code: 65, says: new RegExp(`"${unknown}" is no guest that has left a note in lockspace`) },
      },
    });
  }
});

Deno.test("a name that two living guests have: 65 from every command, with their UUIDs", async () => {
  await using world = await World.create();
  const disks = await disksOf(world);
  await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--uuid",
    ONE,
    "--disk",
    disks.held,
    "--",
    "sleep",
    "60",
  ]);
  await world.startRunning(["run", "--name", "vm2", "--uuid", TWO, "--", "sleep", "600"]);
  // No command makes this: names are unique among the guests that live.
  for (const directory of [`${world.runtimeDir}/guests`, world.lockspace]) await renameEverywhere(directory);
  await tryAll(world, "vm1", disks, {
    code: 65,
    says: new RegExp(
      `"vm1" is the name of 2 guests \\(uuids ${ONE} and ${TWO}\\); say which one by its UUID`,
    ),
  });
  for (const uuid of [ONE, TWO]) await assertDone(world, ["stop", uuid]);
});

/** Gives the guest vm2 the name vm1 in every note and record. */
async function renameEverywhere(directory: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(directory)) {
    const path = `${directory}/${name}`;
    if (isDirectory) await renameEverywhere(path);
    else if (name.endsWith(".json")) {
      const text = await Deno.readTextFile(path);
      await Deno.writeTextFile(path, text.replace('"name":"vm2"', '"name":"vm1"'));
    }
  }
}

Deno.test("of two records with one name, the one whose process lives is meant", async () => {
  await using world = await World.create();
  const disks = await disksOf(world);
  const old = await world.startRunning(["run", "--name", "vm1", "--uuid", ONE, "--", "sleep", "600"]);
  await old.kill();
  const left = await Deno.readTextFile(recordFile(world, ONE));
  const args = ["run", "--name", "vm1", "--uuid", TWO, "--disk", disks.held, "--", "sleep", "600"];
  const guest = await world.startRunning(args);
  const restore = () => Deno.writeTextFile(recordFile(world, ONE), left);
  await restore();
  for (const command of ALL.filter((each) => each !== "stop" && each !== "wait" && each !== "break")) {
    const [made, uuid] = [argumentsOf(command, "vm1", disks), new RegExp(`${TWO}|vm1`)];
    assert.match(await assertDone(world, made), uuid, command);
    await restore();
  }
  const { guests } = JSON.parse(await assertDone(world, ["status", "vm1", "--json"]));
  assert.deepEqual(guests.map((each: { uuid: string; pid: number }) => [each.uuid, each.pid]), [[
    TWO,
    guest.pid,
  ]]);
  await restore();
  await assertRefusedTwice(world, argumentsOf("wait", "vm1", disks), {
    code: 75,
    says: new RegExp(`guest "vm1" \\(pid ${guest.pid}\\) still runs`),
  });
  await assertRefusedTwice(world, argumentsOf("break", "vm1", disks), { code: 75, says: /never broken/ });
  const stopped = JSON.parse(await assertDone(world, ["stop", "vm1", "--json"]));
  assert.deepEqual([stopped.guest.uuid, stopped.outcome], [TWO, "stopped"]);
});

Deno.test("a guest whose process is dead while its record is left", async () => {
  await using world = await World.create();
  const disks = await disksOf(world);
  const args = ["run", "--name", "vm1", "--uuid", ONE, "--disk", disks.held, "--", "sleep", "600"];
  const guest = await world.startRunning(args);
  await guest.kill();
  const left = await Deno.readTextFile(recordFile(world, ONE));
  for (const asked of ["vm1", ONE]) {
    const unknown: Refusal = { code: 65, says: new RegExp(`no guest "${asked}" runs on this host`) };
    await tryAll(world, asked, disks, {
      code: 65,
      says: new RegExp(`guest "vm1" \\(uuid ${ONE}\\) has ended: its process ${guest.pid} is gone`),
    }, {
      except: {
        stop: /^guest "vm1" has stopped already; its 3 locks are free\n$/,
        wait: /^guest "vm1" has ended\n$/,
        status: { ...unknown, touches: "records" },
        attach: { ...unknown, touches: "records" },
        break: new RegExp(`^nobody holds ${asked}; there is nothing to break\n$`),
      },
      between: () => Deno.writeTextFile(recordFile(world, ONE), left),
    });
  }
  assert.deepEqual(kernelLocks(world), []);
  assert.equal(await assertDone(world, ["status"]), "no guests\n");
});

Deno.test("a guest that is dead and has no record any more", async () => {
  await using world = await World.create();
  const disks = await disksOf(world);
  const args = ["run", "--name", "vm1", "--uuid", ONE, "--disk", disks.held, "--", "sleep", "600"];
  const guest = await world.startRunning(args);
  await guest.kill();
  assert.equal(await assertDone(world, ["status"]), "no guests\n");
  for (const asked of ["vm1", ONE]) {
    await tryAll(
      world,
      asked,
      disks,
      { code: 65, says: new RegExp(`no guest "${asked}" runs on this host`) },
      {
        except: {
          stop: new RegExp(`^guest "${asked}" has stopped already\n$`),
          wait: new RegExp(`^guest "${asked}" has ended\n$`),
          break: new RegExp(`^nobody holds ${asked}; there is nothing to break\n$`),
        },
      },
    );
  }
});
