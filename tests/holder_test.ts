import assert from "node:assert/strict";
import { startHolder } from "../lib/carrier/holder.ts";
import { HOLDER_PROGRAMS } from "../lib/carrier/holder_program.ts";
import { ownDescriptorNumbers } from "../lib/process/descriptor_numbers.ts";
import { identifyProcess } from "../lib/process/process_identity.ts";
import { assembleHolder } from "../scripts/assemble_holder.ts";
import { canLock } from "./support/kernel.ts";
import { until } from "./support/until.ts";

/** A guest, a locked file, and a holder that has the lock; our own copy is closed. */
async function held() {
  const directory = await Deno.realPath(await Deno.makeTempDir({ prefix: "lockvisor-test-" }));
  const lock = `${directory}/lock`;
  const guest = new Deno.Command("sleep", { args: ["60"], stdin: "null", stdout: "null" }).spawn();
  const file = await Deno.open(lock, { create: true, read: true, write: true });
  assert.ok(await file.tryLock(true));
  const holder = startHolder(identifyProcess(guest.pid)!, ownDescriptorNumbers([lock]), "guest vm1");
  file.close();
  return {
    lock,
    guest,
    holder,
    async [Symbol.asyncDispose]() {
      try {
        guest.kill("SIGKILL");
      } catch { /* it has ended */ }
      await guest.status;
      await until("the holder ends", () => identifyProcess(holder.pid) === undefined);
      await Deno.remove(directory, { recursive: true });
    },
  };
}

Deno.test("a holder keeps the lock until the guest's process ends, and no longer than an instant more", async () => {
  await using scene = await held();
  assert.equal(await canLock(scene.lock), false);
  scene.guest.kill("SIGKILL");
  const start = performance.now();
  await until("the lock is free", () => canLock(scene.lock), 1000);
  assert.ok(performance.now() - start < 1000);
});

Deno.test("a holder notices a guest that nobody has waited for yet", async () => {
  // A shell that never waits for its child leaves a zombie behind.
  const parent = new Deno.Command("sh", {
    args: ["-c", "sleep 60 & echo $!; exec sleep 60"],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const reader = parent.stdout.getReader();
  const pid = Number(new TextDecoder().decode((await reader.read()).value));
  const holder = startHolder(identifyProcess(pid)!, [], "guest of a careless parent");
  Deno.kill(pid, "SIGKILL");
  await until("the holder ends beside the zombie", () => identifyProcess(holder.pid) === undefined);
  assert.match(Deno.readTextFileSync(`/proc/${pid}/stat`), /\) Z /);
  parent.kill("SIGKILL");
  await reader.cancel();
  await parent.status;
});

Deno.test("a holder has no descriptor but the locks, a pidfd and the null device, and is alone in its session", async () => {
  await using scene = await held();
  const { pid } = scene.holder;
  const targets = Array.from(Deno.readDirSync(`/proc/${pid}/fd`), ({ name }) => {
    return Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
  });
  assert.deepEqual(
    targets.sort(),
    [scene.lock, "/dev/null", "/dev/null", "/dev/null", "anon_inode:[pidfd]"].sort(),
  );
  await until("it has its name", () => Deno.readTextFileSync(`/proc/${pid}/comm`) === "lockvisor-hold\n");
  const session = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1]!.split(" ")[3];
  assert.equal(session, String(pid));
  assert.equal(Deno.readLinkSync(`/proc/${pid}/cwd`), "/");
  const resident = Number(/^Rss:\s+(\d+)/m.exec(Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`))![1]);
  assert.ok(resident <= 64, `${resident} KiB resident`);
});

Deno.test("no holder is started for a guest that has ended, be its pid used again or not", async () => {
  const guest = new Deno.Command("true").spawn();
  const identity = { ...identifyProcess(Deno.pid)!, startTime: "1" };
  await guest.status;
  assert.throws(() => startHolder(identity, [], "guest"), { code: "data" });
  assert.throws(() => startHolder({ ...identity, pid: guest.pid }, [], "guest"), { code: "data" });
});

for (const machine of ["x86_64", "aarch64"] as const) {
  Deno.test(`the built-in holder for ${machine} is what its source assembles to`, async () => {
    const builtIn = Uint8Array.from(atob(HOLDER_PROGRAMS[machine]), (character) => character.charCodeAt(0));
    assert.deepEqual(builtIn, await assembleHolder(machine));
  });
}
