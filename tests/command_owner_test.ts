import assert from "node:assert/strict";
import { identifyProcess } from "../lib/process/process_identity.ts";
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
import { until } from "./support/until.ts";
import { BINARY, type Finished, World } from "./support/world.ts";

/*
 * Every command that takes a guest, on a guest of somebody else. They need root, to be somebody else.
 */

const ALL = Object.keys(GUEST_COMMANDS) as GuestCommand[];
const NOBODY = 65534;
const AS_NOBODY = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"];

/** A world that nobody can reach too, with a lockvisor for nobody, who need not reach where it was built. */
async function openWorld() {
  const world = await World.create();
  const program = `${world.directory}/lockvisor`;
  try {
    await Deno.link(BINARY, program);
  } catch {
    await Deno.copyFile(BINARY, program);
  }
  await Deno.chmod(world.directory, 0o755);
  const disks = { held: await world.disk("held"), spare: await world.disk("spare") };
  const asNobody = (args: string[]): Promise<Finished> =>
    world.execute("setpriv", [...AS_NOBODY, program, ...args]);
  return { world, program, disks, asNobody };
}

/** Makes lockspace and disks nobody's; the runtime directory is made at the first start. */
async function giveToNobody(world: World, { held, spare }: Disks): Promise<void> {
  await Deno.chown(world.directory, NOBODY, NOBODY);
  const paths = [world.lockspace, `${world.lockspace}/lockspace.json`, held, spare];
  for (const path of paths) await Deno.chown(path, NOBODY, NOBODY);
}

/** Runs a guest of nobody's while an action goes on. */
async function withGuestOfNobody(
  { world, program }: { world: World; program: string },
  args: string[],
  action: (pid: number) => Promise<void>,
): Promise<void> {
  const guest = new Deno.Command("setpriv", {
    args: [...AS_NOBODY, program, ...args],
    clearEnv: true,
    env: world.environment,
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).spawn();
  try {
    await until("the guest runs", () => Deno.readLinkSync(`/proc/${guest.pid}/exe`).endsWith("/sleep"));
    await action(guest.pid);
  } finally {
    guest.kill("SIGKILL");
    await guest.status;
  }
}

Deno.test("root's guest: 77 from every command that nobody gives", async () => {
  const { world, disks, asNobody } = await openWorld();
  await using _ = world;
  const guest = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--disk",
    disks.held,
    "--",
    "sleep",
    "600",
  ]);
  const { uuid } = JSON.parse(await assertDone(world, ["status", "vm1", "--json"])).guests[0];
  for (const modes of ["go-rwx", "a+rX"]) {
    await world.execute("chmod", ["-R", modes, world.lockspace, world.runtimeDir]);
    for (const asked of ["vm1", uuid]) {
      for (const command of ALL) {
        await assertRefusedTwice(world, argumentsOf(command, asked, disks), {
          code: 77,
          says:
            /^lockvisor: (runtime directory|lockspace) \S+ belongs to uid 0, not to uid 65534, who runs this; /,
        }, asNobody);
      }
    }
  }
  const adopt = ["adopt", "--pid", String(guest.pid), "--name", "vm2"];
  await assertRefusedTwice(world, adopt, { code: 77, says: /belongs to uid 0/ }, asNobody);
  assert.equal(kernelLocks(world).length, 6);
  assert.notEqual(identifyProcess(guest.pid), undefined, "it runs on");
});

Deno.test("nobody's guest: 77 from every command that root gives, who could do it", async () => {
  const { world, program, disks } = await openWorld();
  await using _ = world;
  await giveToNobody(world, disks);
  await withGuestOfNobody({ world, program }, [
    "run",
    "--name",
    "vm1",
    "--disk",
    disks.held,
    "--",
    "sleep",
    "60",
  ], async (pid) => {
    for (const command of ALL) {
      await assertRefusedTwice(world, argumentsOf(command, "vm1", disks), {
        code: 77,
        says:
          /^lockvisor: (runtime directory|lockspace) \S+ belongs to uid 65534, not to uid 0, who runs this; /,
      });
    }
    const adopt = ["adopt", "--pid", String(pid), "--name", "vm2"];
    await assertRefusedTwice(world, adopt, { code: 77, says: /belongs to uid 65534/ });
    assert.equal(kernelLocks(world).length, 6);
    assert.notEqual(identifyProcess(pid), undefined, "it runs on");
  });
});

Deno.test("a guest of one's own with somebody else's lockspace: it is not stopped, nothing is locked", async () => {
  const { world, disks } = await openWorld();
  await using _ = world;
  const guest = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--disk",
    disks.held,
    "--",
    "sleep",
    "600",
  ]);
  await Deno.chown(world.lockspace, NOBODY, NOBODY);
  for (
    const command of ["stop", "attach", "acquire", "release", "pause --release", "break"] as const
  ) {
    await assertRefusedTwice(world, argumentsOf(command, "vm1", disks), {
      code: 77,
      says: /^lockvisor: lockspace \S+ belongs to uid 65534, not to uid 0/,
    });
  }
  const status = await world.run(["status", "vm1"]);
  assert.match(
    status.stdout,
    /^vm1 +running +\d+ +\S+ +0\/3 \(3 \?\) /m,
    "it lives, and its locks are not known",
  );
  assert.notEqual(identifyProcess(guest.pid), undefined, "it runs on");
});

Deno.test("a guest whose process has become somebody else's", async () => {
  const { world, program, disks, asNobody } = await openWorld();
  await using _ = world;
  await giveToNobody(world, disks);
  // As sudo does it, but with the locks' descriptors: nobody may neither signal nor trace the process then.
  const become = `${world.directory}/become`;
  await Deno.copyFile("/usr/bin/setpriv", become);
  await Deno.chmod(become, 0o4755);
  const args = [
    "run",
    "--name",
    "vm1",
    "--disk",
    disks.held,
    "--",
    become,
    "--reuid=0",
    "--regid=0",
    "--clear-groups",
    "sleep",
    "60",
  ];
  await withGuestOfNobody({ world, program }, args, async (pid) => {
    const who = `guest "vm1" \\(pid ${pid}\\)`;
    const refusals: Partial<Record<GuestCommand, Refusal>> = {
      stop: { code: 77, says: new RegExp(`${who} is another user's; stop it as that user or as root`) },
      wait: { code: 75, says: new RegExp(`${who} still runs`) },
      release: { code: 77, says: new RegExp(`cannot see the descriptors of process ${pid}; run this as`) },
      "pause --release": { code: 77, says: new RegExp(`cannot see the descriptors of process ${pid}`) },
      break: { code: 75, says: new RegExp(`${who.replace("\\)", " on .*\\)")}; that is never broken`) },
    };
    for (const [command, refusal] of Object.entries(refusals)) {
      await assertRefusedTwice(world, argumentsOf(command as GuestCommand, "vm1", disks), refusal, asNobody);
    }
    const adopt = ["adopt", "--pid", String(pid), "--name", "vm2"];
    const another = new RegExp(`process ${pid} is another user's; adopt it as that user or as root`);
    await assertRefusedTwice(world, adopt, { code: 77, says: another }, asNobody);
    // What needs neither a signal nor a look into the process works: the kernel's table of locks is for everybody.
    for (const command of ["status", "attach", "acquire", "pause", "resume", "status"] as const) {
      const { code, stderr } = await asNobody(argumentsOf(command, "vm1", disks));
      assert.deepEqual({ code, stderr }, { code: 0, stderr: "" }, command);
    }
    assert.equal(kernelLocks(world).length, 10);
    assert.notEqual(identifyProcess(pid), undefined, "it runs on");
  });
});
