import assert from "node:assert/strict";
import { canLock, lockFiles } from "./support/kernel.ts";
import { type Answer, assertAnswer, assertNotStarted } from "./support/refused.ts";
import { exchange, makeFifo, UsedWorld } from "./support/used_world.ts";

/** Something in a place where it must not be. */
interface Hostility extends Answer {
  kind: string;
  tamper(used: UsedWorld): Promise<unknown> | void;
}
const GARBAGE = new Uint8Array(9 * 1024 * 1024).fill(0x20);

const LOCKSPACES: Hostility[] = [
  {
    kind: "a lockspace that is missing",
    tamper: ({ world }) => Deno.rename(world.lockspace, `${world.directory}/elsewhere`),
    code: 78,
    says: /lockspace \/.*\/lockspace does not exist; is its filesystem mounted\?.*lockvisor init \//,
  },
  {
    kind: "an empty directory, as an unmounted filesystem leaves it",
    tamper: async ({ world }) => {
      await Deno.rename(world.lockspace, `${world.directory}/elsewhere`);
      await Deno.mkdir(world.lockspace, { mode: 0o700 });
    },
    code: 78,
    says: /lockspace \/.*\/lockspace has no lockspace\.json; is its filesystem mounted\?/,
  },
  {
    kind: "lock files without lockspace.json",
    tamper: ({ world }) => Deno.remove(`${world.lockspace}/lockspace.json`),
    code: 78,
    says: /lockspace \/.*\/lockspace has no lockspace\.json/,
  },
  {
    kind: "a file as lockspace",
    tamper: ({ world }) => exchange(world.lockspace, () => Deno.writeTextFile(world.lockspace, "")),
    code: 78,
    says: /lockspace \/.*\/lockspace is not a directory/,
  },
  {
    kind: "a lockspace below a file",
    tamper: ({ world }) => exchange(world.lockspace, () => Deno.symlink("a/b", world.lockspace)),
    code: 78,
    says: /\/lockspace/,
  },
  {
    kind: "a link to nowhere as lockspace",
    tamper: ({ world }) => exchange(world.lockspace, () => Deno.symlink("nowhere", world.lockspace)),
    code: 78,
    says: /\/lockspace is a symbolic link that leads nowhere/,
  },
  {
    kind: "a link to itself as lockspace",
    tamper: ({ world }) => exchange(world.lockspace, () => Deno.symlink("lockspace", world.lockspace)),
    code: 65,
    says: /\/lockspace: too many levels of symbolic links/,
  },
  {
    kind: "a lockspace of another user",
    tamper: ({ world }) => Deno.chown(world.lockspace, 65534, null),
    code: 77,
    says: /lockspace \/.*\/lockspace belongs to uid 65534, not to uid 0/,
  },
  {
    kind: "a lockspace that a group may write",
    tamper: ({ world }) => Deno.chmod(world.lockspace, 0o770),
    code: 77,
    says: /lockspace \/.*\/lockspace may be written by others \(mode 0770\); .*chmod 0700 \//,
  },
  {
    kind: "a lockspace that everybody may write, with the sticky bit",
    tamper: ({ world }) => Deno.chmod(world.lockspace, 0o1777),
    code: 77,
    says: /may be written by others \(mode 1777\)/,
  },
  {
    kind: "a lockspace.json that is cut off",
    tamper: ({ world }) => Deno.writeTextFile(`${world.lockspace}/lockspace.json`, `{"version":1,"id":`),
    code: 65,
    says: /\/lockspace\.json cannot be read: it is not complete JSON/,
  },
  {
    kind: "a lockspace.json of a newer version",
    tamper: ({ world }) =>
      Deno.writeTextFile(`${world.lockspace}/lockspace.json`, `{"version":2,"id":"x","created":"x"}`),
    code: 78,
    says: /lockspace \/.*\/lockspace has version 2, made by a newer lockvisor/,
  },
  {
    kind: "a lockspace.json without a version",
    tamper: ({ world }) => Deno.writeTextFile(`${world.lockspace}/lockspace.json`, `{"id":"x"}`),
    code: 65,
    says: /\/lockspace\.json cannot be read: field "version" of it is not a whole number/,
  },
  {
    kind: "a lockspace.json that is a symbolic link",
    tamper: async ({ world }) => {
      await Deno.rename(`${world.lockspace}/lockspace.json`, `${world.directory}/mark`);
      await Deno.symlink(`${world.directory}/mark`, `${world.lockspace}/lockspace.json`);
    },
    code: 65,
    says: /\/lockspace\.json cannot be read: it is a symbolic link/,
  },
  {
    kind: "a lockspace.json that is a FIFO",
    tamper: (used) => makeFifo(used, `${used.world.lockspace}/lockspace.json`),
    code: 65,
    says: /\/lockspace\.json cannot be read: it is not a regular file/,
  },
];

const LOCK_FILES: Hostility[] = [
  {
    kind: "a link to nowhere as lock file",
    tamper: ({ lockFile }) => exchange(lockFile, () => Deno.symlink("nowhere", lockFile)),
    code: 65,
    says: /lock file \/.*[0-9a-f]{64}\.a is a symbolic link; .*find out who did, remove it/,
  },
  {
    kind: "a link to another file as lock file",
    tamper: ({ lockFile, world }) =>
      exchange(lockFile, () => Deno.symlink(`${world.directory}/lockvisor.toml`, lockFile)),
    code: 65,
    says: /lock file \/.*\.a is a symbolic link/,
  },
  {
    kind: "a directory as lock file",
    tamper: ({ lockFile }) => exchange(lockFile, () => Deno.mkdir(lockFile)),
    code: 65,
    says: /lock file \/.*\.a is a directory/,
  },
  {
    kind: "a FIFO as lock file",
    tamper: (used) => makeFifo(used, used.lockFile),
    code: 65,
    says: /lock file \/.*\.a is a FIFO/,
  },
  {
    kind: "a lock file with something in it",
    tamper: ({ lockFile }) => Deno.writeTextFile(lockFile, "x"),
    code: 65,
    says: /lock file \/.*\.a has 1 bytes in it and must be empty/,
  },
  {
    kind: "a lock file with a second name",
    tamper: ({ lockFile, world }) => Deno.link(lockFile, `${world.directory}/second`),
    code: 65,
    says: /lock file \/.*\.a has a second name/,
  },
  {
    kind: "a lock file that a group may write",
    tamper: ({ lockFile }) => Deno.chmod(lockFile, 0o660),
    code: 77,
    says: /lock file \/.*\.a may be written by others/,
  },
  {
    kind: "a bad second slot",
    tamper: ({ lockFile }) => Deno.writeTextFile(lockFile.replace(/a$/, "b"), "x"),
    code: 65,
    says: /lock file \/.*\.b has 1 bytes in it/,
  },
];

const STATES: Hostility[] = [
  {
    kind: "a file in place of a key's directory",
    tamper: async ({ stateFile }) => {
      const directory = stateFile.replace("/state.json", "");
      await exchange(directory, () => Deno.writeTextFile(directory, ""));
    },
    code: 65,
    says: /[0-9a-f]{64}\.d.* not a directory/,
  },
  {
    kind: "a link in place of a key's directory",
    tamper: async ({ stateFile, world }) => {
      const directory = stateFile.replace("/state.json", "");
      await Deno.rename(directory, `${world.directory}/elsewhere`);
      await Deno.symlink(`${world.directory}/elsewhere`, directory);
    },
    code: 65,
    says: /[0-9a-f]{64}\.d is not a directory/,
  },
  {
    kind: "a link to nowhere in place of a key's directory",
    tamper: async ({ stateFile }) => {
      const directory = stateFile.replace("/state.json", "");
      await exchange(directory, () => Deno.symlink("nowhere", directory));
    },
    code: 65,
    says: /[0-9a-f]{64}\.d is not a directory/,
  },
  {
    kind: "a generation file that is cut off",
    tamper: ({ stateFile }) => Deno.writeTextFile(stateFile, `{"version":1,"identity":"pa`),
    code: 65,
    says: /generation file \/.*\/state\.json cannot be trusted: it is not complete JSON/,
  },
  {
    kind: "an empty generation file",
    tamper: ({ stateFile }) => Deno.truncate(stateFile),
    code: 65,
    says: /generation file \/.*\/state\.json cannot be trusted: it is not complete JSON/,
  },
  {
    kind: "a generation file of another identity",
    tamper: ({ stateFile }) =>
      Deno.writeTextFile(stateFile, `{"version":1,"identity":"path:other:/x","generation":3}`),
    code: 65,
    says: /cannot be trusted: it speaks of another identity/,
  },
  {
    kind: "a generation below zero",
    tamper: async ({ stateFile }) => {
      const state = JSON.parse(await Deno.readTextFile(stateFile));
      await Deno.writeTextFile(stateFile, JSON.stringify({ ...state, generation: -1 }));
    },
    code: 65,
    says: /cannot be trusted: field "generation" of it is not a whole number/,
  },
  {
    kind: "a generation file with a list in it",
    tamper: ({ stateFile }) => Deno.writeTextFile(stateFile, "[".repeat(100_000) + "]".repeat(100_000)),
    code: 65,
    says: /cannot be trusted: it is not a JSON object/,
  },
  {
    kind: "a generation file that is not UTF-8",
    tamper: ({ stateFile }) => Deno.writeFile(stateFile, new Uint8Array([0x7b, 0xff, 0x7d])),
    code: 65,
    says: /cannot be trusted: it is not UTF-8 text/,
  },
  {
    kind: "a huge generation file",
    tamper: ({ stateFile }) => Deno.writeFile(stateFile, GARBAGE),
    code: 65,
    says: /cannot be trusted: it has 9437184 bytes/,
  },
  {
    kind: "a generation file that is a symbolic link",
    tamper: async ({ stateFile, world }) => {
      await Deno.rename(stateFile, `${world.directory}/elsewhere`);
      await Deno.symlink(`${world.directory}/elsewhere`, stateFile);
    },
    code: 65,
    says: /cannot be trusted: it is a symbolic link/,
  },
  {
    kind: "a generation file that is a link to nowhere",
    tamper: ({ stateFile }) => exchange(stateFile, () => Deno.symlink("nowhere", stateFile)),
    code: 65,
    says: /cannot be trusted: it is a symbolic link/,
  },
  {
    kind: "a generation file that is a FIFO",
    tamper: (used) => makeFifo(used, used.stateFile),
    code: 65,
    says: /cannot be trusted: it is not a regular file/,
  },
];

const RUNTIME_DIRECTORIES: Hostility[] = [
  {
    kind: "a runtime directory that a group may write",
    tamper: ({ world }) => Deno.chmod(world.runtimeDir, 0o770),
    code: 77,
    says: /runtime directory \/.*\/run may be written by others \(mode 0770\)/,
  },
  {
    kind: "a directory of records that everybody may write",
    tamper: ({ world }) => Deno.chmod(`${world.runtimeDir}/guests`, 0o777),
    code: 77,
    says: /runtime directory \/.*\/run\/guests may be written by others/,
  },
  {
    kind: "a runtime directory of another user",
    tamper: ({ world }) => Deno.chown(world.runtimeDir, 65534, null),
    code: 77,
    says: /runtime directory \/.*\/run belongs to uid 65534/,
  },
  {
    kind: "a file as runtime directory",
    tamper: ({ world }) => exchange(world.runtimeDir, () => Deno.writeTextFile(world.runtimeDir, "")),
    code: 78,
    says: /runtime directory \/.*\/run is not a directory/,
  },
  {
    kind: "a link to nowhere as the records' lock file",
    tamper: ({ world }) => {
      const path = `${world.runtimeDir}/guests.lock`;
      return exchange(path, () => Deno.symlink(`${world.directory}/elsewhere`, path));
    },
    code: 65,
    says: /\/run\/guests\.lock is a symbolic link/,
  },
  {
    kind: "a FIFO as the records' lock file",
    tamper: (used) => makeFifo(used, `${used.world.runtimeDir}/guests.lock`),
    code: 65,
    says: /\/run\/guests\.lock is a FIFO/,
  },
  {
    kind: "a directory as the records' lock file",
    tamper: ({ world }) => {
      const path = `${world.runtimeDir}/guests.lock`;
      return exchange(path, () => Deno.mkdir(path));
    },
    code: 65,
    says: /\/run\/guests\.lock is a directory/,
  },
  {
    kind: "a link to nowhere as runtime directory",
    tamper: ({ world }) => exchange(world.runtimeDir, () => Deno.symlink("nowhere", world.runtimeDir)),
    code: 78,
    says: /runtime directory \/.*\/run is a symbolic link that leads nowhere/,
  },
];

for (
  const { kind, tamper, code, says } of [...LOCKSPACES, ...LOCK_FILES, ...STATES, ...RUNTIME_DIRECTORIES]
) {
  Deno.test(`hostile files, ${code}: ${kind}`, async () => {
    await using used = await UsedWorld.create();
    await tamper(used);
    await assertNotStarted(used.world, used.start, { code, says });
    for (const name of fileNames(used.world.lockspace)) {
      assert.ok(await canLock(`${used.world.lockspace}/${name}`), `${name} is free`);
    }
  });
}

/** The lock files that are files. */
function fileNames(lockspace: string): string[] {
  try {
    return lockFiles(lockspace).filter((name) => Deno.lstatSync(`${lockspace}/${name}`).isFile);
  } catch {
    return []; // the lockspace itself is what was exchanged
  }
}

Deno.test("hostile files: a directory as a guest's record", async () => {
  await using used = await UsedWorld.create();
  const { world } = used;
  const [record] = Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`), ({ name }) => name)
    .filter((name) => name.endsWith(".json"));
  const path = `${world.runtimeDir}/guests/${record}`;
  await exchange(path, () => Deno.mkdir(`${path}/not-empty`, { recursive: true }));
  const result = await world.run(["run", ...used.start, "--", "touch", `${world.directory}/started`]);
  assertAnswer(result, { code: 74, says: /cannot write \/.*\/guests\/[0-9a-f-]{36}\.json/ });
  assert.equal((await world.run(["check", "--disk", used.disk])).code, 0, "the locks were given back");
  assert.deepEqual(used.notes, [], "and so were the notes");
});
