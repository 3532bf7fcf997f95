import assert from "node:assert/strict";
import { ownershipFault } from "../lib/manager/driver_file.ts";
import { moduleWith, writeModule } from "./support/driver_module.ts";
import { assertAnswer, assertNotStarted } from "./support/refused.ts";
import { BINARY, World } from "./support/world.ts";

const MODES: [number, "own" | "above", "safe" | "unsafe"][] = [
  [0o100644, "own", "safe"],
  [0o100600, "own", "safe"],
  [0o100555, "own", "safe"],
  [0o100664, "own", "unsafe"],
  [0o100646, "own", "unsafe"],
  [0o040755, "own", "safe"],
  [0o040775, "own", "unsafe"],
  [0o041777, "own", "unsafe"],
  [0o041777, "above", "safe"],
  [0o041775, "above", "safe"],
  [0o040777, "above", "unsafe"],
  [0o040775, "above", "unsafe"],
  [0o040711, "above", "safe"],
];

Deno.test("who may own and write a plugin and the folders that lead to it", () => {
  for (const [mode, kind, verdict] of MODES) {
    for (const [uid, effectiveUid] of [[0, 0], [0, 1000], [1000, 1000]] as const) {
      const fault = ownershipFault({ uid, mode }, kind, effectiveUid);
      assert.equal(fault === undefined ? "safe" : "unsafe", verdict, `${mode.toString(8)} ${kind}`);
    }
    for (const [uid, effectiveUid] of [[1000, 0], [1001, 1000]] as const) {
      assert.match(ownershipFault({ uid, mode }, kind, effectiveUid)!, /^belongs to uid 100/);
    }
  }
});

/** Ways to make a plugin's place unsafe, and what is said about it. */
const UNSAFE: [string, (file: string, folder: string, world: World) => Promise<string>, RegExp][] = [
  ["file that its group may write", async (file) => {
    await Deno.chmod(file, 0o664);
    return file;
  }, /plugins\/driver.js may be written by others \(mode 0664\); chmod go-w it/],
  ["folder that everybody may write", async (file, folder) => {
    await Deno.chmod(folder, 0o777);
    return file;
  }, /\/plugins may be written by others \(mode 0777\)/],
  ["folder that everybody may write, with a sticky bit", async (file, folder) => {
    await Deno.chmod(folder, 0o1777);
    return file;
  }, /\/plugins may be written by others \(mode 1777\)/],
  ["folder above that everybody may write", async (file, _, world) => {
    await Deno.chmod(world.directory, 0o777);
    return file;
  }, /\/lockvisor-test-\w+ may be written by others \(mode 0777\)/],
  ["link to a file that everybody may write", async (file, folder) => {
    await Deno.chmod(file, 0o646);
    await Deno.symlink(file, `${folder}/link.js`);
    return `${folder}/link.js`;
  }, /plugins\/driver.js may be written by others \(mode 0646\)/],
  ["link to nothing", async (_, folder) => {
    await Deno.symlink("nothing.js", `${folder}/link.js`);
    return `${folder}/link.js`;
  }, /there is no such file/],
  [
    "path that leads nowhere",
    (_, folder) => Promise.resolve(`${folder}/nothing.js`),
    /there is no such file/,
  ],
  ["folder", (_, folder) => Promise.resolve(folder), /is not a file/],
  ["FIFO", async (_, folder, world) => {
    await world.execute("mkfifo", [`${folder}/fifo.js`]);
    return `${folder}/fifo.js`;
  }, /fifo.js is not a file/],
  ["device", () => Promise.resolve("/dev/null"), /is not a file/],
];

for (const [what, prepare, says] of UNSAFE) {
  Deno.test(`no plugin is loaded from a ${what}, and nothing is locked`, async () => {
    await using world = await World.create();
    const file = await writeModule(world, moduleWith({ before: `Deno.writeTextFileSync("ran", "");` }));
    const path = await prepare(file, `${world.directory}/plugins`, world);
    const code = /may be written/.test(says.source) ? 77 : 69;
    await assertNotStarted(world, ["--plugin", path, "--name", "vm1"], { code, says });
    await Deno.chmod(world.directory, 0o700);
  });
}

Deno.test("a link to a plugin that is safe is followed, and the record names where it leads", async () => {
  await using world = await World.create();
  const file = await writeModule(world, moduleWith());
  await Deno.symlink(file, `${world.directory}/link.js`);
  await world.startRunning(["run", "--plugin", "./link.js", "--name", "vm1", "--", "sleep", "60"]);
  const { guests } = JSON.parse((await world.run(["status", "--json"])).stdout);
  assert.equal(guests[0].plugin, file);
});

Deno.test("a plugin whose path has unusual characters in it", async () => {
  await using world = await World.create();
  const file = await writeModule(world, moduleWith(), "a b?c#d%20é\n.js");
  const { code, stderr } = await world.run(["run", "--plugin", file, "--name", "vm1", "--", "true"]);
  assert.deepEqual([code, stderr], [0, ""]);
});

Deno.test("a plugin is trusted if root or who runs it owns it, and nobody else", async () => {
  if (Deno.uid() !== 0) throw new Error("this test changes users and must be run as root");
  const [stranger, user] = [4242, 4243];
  await using world = await World.create();
  const file = await writeModule(world, moduleWith());
  await Deno.chmod(world.directory, 0o755);
  const folder = `${world.directory}/plugins`;
  await Deno.chmod(folder, 0o755);
  const start = (uid: number) => {
    const settings = [
      `--lockspace=${world.directory}/ls${uid}`,
      `--runtime-dir=${world.directory}/run${uid}`,
    ];
    const args = ["run", ...settings, "--plugin", file, "--name", "vm1", "--", "true"];
    return world.execute("setpriv", [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", BINARY, ...args]);
  };
  for (const uid of [stranger, user]) {
    const home = [`${world.directory}/run${uid}`, `${world.directory}/ls${uid}`];
    for (const directory of home) {
      await Deno.mkdir(directory, { mode: 0o700 });
      await Deno.chown(directory, uid, uid);
    }
  }
  assert.deepEqual((await start(user)).code, 0, "root's");
  await Deno.chown(file, stranger, stranger);
  assertAnswer(await start(user), {
    code: 77,
    says: /driver.js belongs to uid 4242, neither to root nor to uid 4243, who runs this$/m,
  });
  assertAnswer(await start(0), {
    code: 77,
    says: /driver.js belongs to uid 4242, neither to root nor to uid 0/,
  });
  assert.deepEqual((await start(stranger)).code, 0, "their own");
  await Deno.chown(file, user, user);
  await Deno.chown(folder, stranger, stranger);
  assertAnswer(await start(user), { code: 77, says: /plugins belongs to uid 4242, neither to root/ });
});
