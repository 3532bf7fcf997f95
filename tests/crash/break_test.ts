import assert from "node:assert/strict";
import { lockFiles } from "../support/kernel.ts";
import { BINARY, World } from "../support/world.ts";
import { BREAK_CASES } from "./break_cases.ts";
import { FAILPOINT_BINARY } from "./crash.ts";

/** A disk that a guest of a host has locked which `break` cannot see, as if it were dead and its storage kept the lock. */
async function stage() {
  const there = await World.create({ hostId: "hv-dead" });
  const here = await World.create({ hostId: "hv-alive", lockspace: there.lockspace });
  const disk = await there.disk("a");
  const env = { LOCKVISOR_STORAGE: `san1=${there.directory}` };
  await there.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"], { env });
  // In a pid namespace of its own this kernel shows none of the guest's locks. The first process there could not kill
  // itself, so a shell is that one.
  const elsewhere = (program: string, args: string[], more: Record<string, string> = {}) =>
    here.execute("unshare", [
      ...["--fork", "--pid", "--mount-proc", "sh", "-c", '"$@"; exit $?', "sh"],
      program,
      ...args,
    ], { env: { ...env, ...more } });
  return { there, here, disk, elsewhere };
}

/** Key and generation of each key that has one. */
function generations(lockspace: string): Map<string, number> {
  const directories = Array.from(Deno.readDirSync(lockspace)).filter(({ name }) => name.endsWith(".d"));
  return new Map(directories.map(({ name }) => {
    const text = Deno.readTextFileSync(`${lockspace}/${name}/state.json`);
    return [name.slice(0, -2), JSON.parse(text).generation];
  }));
}

for (const { at, passage } of BREAK_CASES) {
  Deno.test(`break of a dead host's lock, killed at ${at}, passage ${passage}`, async () => {
    const { there, here, disk, elsewhere } = await stage();
    await using _there = there;
    await using _here = here;
    const { lockspace } = there;
    const args = ["break", "vm1", "--reason", "power was cut", "--host-is-fenced", "hv-dead"];
    const files = lockFiles(lockspace);
    const inodes = files.map((name) => Deno.lstatSync(`${lockspace}/${name}`).ino);
    const before = generations(lockspace);

    const killed = await elsewhere(FAILPOINT_BINARY, args, { LOCKVISOR_FAILPOINT: `${at}:${passage}` });
    assert.equal(killed.code, 128 + 9, `not reached: ${killed.stderr}`);
    const audited = () =>
      Deno.readTextFileSync(`${lockspace}/audit.log`).trim().split("\n").map((line) => JSON.parse(line));
    assert.equal(audited().length, 1, "nothing was broken without a word in the log");
    const attached = await elsewhere(BINARY, ["attach", "--json"]);
    assert.deepEqual([attached.code, attached.stdout], [0, '{"guests":[]}\n'], attached.stderr);
    assert.equal(
      (await elsewhere(BINARY, ["check", "--lease", "cluster:other"])).code,
      0,
      "others can go on",
    );

    const repeated = await elsewhere(BINARY, args);
    assert.equal(repeated.code, 0, repeated.stderr);
    const left = files.filter((name, index) => Deno.lstatSync(`${lockspace}/${name}`).ino === inodes[index]);
    assert.deepEqual(left, [], "no name leads to a file that the dead host has locked");
    const after = generations(lockspace);
    for (const key of before.keys()) {
      assert.ok(after.get(key)! > before.get(key)!, `the generation of ${key} has grown`);
    }
    for (const { reason } of audited()) assert.equal(reason, "power was cut");
    const started = await elsewhere(BINARY, ["run", "--name", "vm2", "--disk", disk, "--", "true"]);
    assert.equal(started.code, 0, started.stderr);

    const past = new Date(Date.now() - 120_000);
    const names = () => Array.from(Deno.readDirSync(lockspace), ({ name }) => name);
    for (const name of names()) if (name.endsWith(".tmp")) Deno.utimeSync(`${lockspace}/${name}`, past, past);
    assert.equal((await elsewhere(BINARY, ["gc"])).code, 0);
    assert.deepEqual(names().filter((name) => name.endsWith(".tmp")), []);
  });
}
