import assert from "node:assert/strict";
import { assertAnswer, assertNotStarted, assertRefused } from "./support/refused.ts";
import { UsedWorld } from "./support/used_world.ts";
import { BINARY, World } from "./support/world.ts";

/** A shell script in a mount namespace of its own, on a small filesystem at `$FS`; it gets `$0` = lockvisor. */
function onOwnFilesystem(world: World, options: string, script: string) {
  const prepare =
    `mkdir "$FS" && mount -t tmpfs -o ${options} tmpfs "$FS" && "$0" init "$FS/lockspace" && set +e\n`;
  return world.execute("unshare", ["-m", "sh", "-e", "-c", prepare + script, BINARY], {
    env: { FS: `${world.directory}/fs`, LOCKVISOR_LOCKSPACE: `${world.directory}/fs/lockspace` },
  });
}

/** Runs a guest that must be refused, then asks whether everything is free. */
const REFUSED_START = `
  "$0" run --name vm1 --disk a -- touch started 2>stderr; echo "run $?"
  [ -e started ] && echo started
  for file in "$FS"/lockspace/*.[ab]; do [ ! -e "$file" ] || flock -n "$file" true || echo "locked $file"; done
  find "$FS" -name '*.tmp' -o -name 'testhost.*' -o -path '*/state.json' -size 0
`;

Deno.test("a lockspace on a filesystem without room: 73, nothing started, nothing locked, and it works once there is room", async () => {
  await using world = await World.create();
  await world.disk("a");
  const { code, stdout, stderr } = await onOwnFilesystem(
    world,
    "size=64k",
    `dd if=/dev/zero of="$FS/ballast" bs=4k 2>/dev/null
    ${REFUSED_START}
    "$0" check --disk a; echo "check $?"; rm "$FS/ballast"
    "$0" run --name vm1 --disk a -- echo works`,
  );
  assert.equal(code, 0, stderr);
  const lines = stdout.trimEnd().split("\n").slice(1);
  assert.deepEqual(lines, ["run 73", `disk ${world.directory}/a (exclusive): free`, "check 0", "works"]);
  const said = await Deno.readTextFile(`${world.directory}/stderr`);
  assert.match(said, /^lockvisor: cannot (write|create) [^\n]*: no space is left on the filesystem[^\n]*\n$/);
});

Deno.test("a lockspace on a filesystem without inodes: 73, nothing started, nothing locked", async () => {
  await using world = await World.create();
  await world.disk("a");
  // Inodes for the root, the lockspace and its mark, and for a few lock files, in the middle of which they run out.
  for (const inodes of [4, 6, 8, 9]) {
    const { code, stdout, stderr } = await onOwnFilesystem(world, `nr_inodes=${inodes}`, REFUSED_START);
    assert.equal(code, 0, stderr);
    assert.deepEqual(stdout.trimEnd().split("\n").slice(1), ["run 73"], `${inodes} inodes`);
    const said = await Deno.readTextFile(`${world.directory}/stderr`);
    assert.match(said, /^lockvisor: cannot [^\n]*: no space is left on the filesystem[^\n]*\n$/);
    await Deno.remove(`${world.directory}/fs`);
  }
});

Deno.test("a lockspace on a read-only filesystem: 73", async () => {
  await using world = await World.create();
  await world.disk("a");
  const { code, stdout, stderr } = await onOwnFilesystem(
    world,
    "size=1m",
    `mount -o remount,ro "$FS"\n${REFUSED_START}`,
  );
  assert.equal(code, 0, stderr);
  assert.deepEqual(stdout.trimEnd().split("\n").slice(1), ["run 73"]);
  const said = await Deno.readTextFile(`${world.directory}/stderr`);
  assert.match(said, /^lockvisor: cannot [^\n]*: the filesystem is read-only\n$/);
});

const STRACE = ["strace", "-f", "-o", "/dev/null", "-e"];

/** Runs lockvisor with a system call that fails. */
function withFault(world: World, fault: string) {
  return (args: string[]) =>
    world.execute("strace", [...STRACE.slice(1), `inject=${fault}`, BINARY, ...args]);
}

for (const errno of ["EOPNOTSUPP", "ENOLCK", "ENOSYS"]) {
  Deno.test(`a lockspace on a filesystem without flock (${errno}): 78`, async () => {
    await using used = await UsedWorld.create();
    const says = /lockspace \/.*\/lockspace is on a filesystem \(\w+\) that does not offer flock/;
    const execute = withFault(used.world, `flock:error=${errno}`);
    await assertNotStarted(used.world, used.start, { code: 78, says }, { execute });
  });
}

Deno.test("check on a filesystem without flock, where only trying tells: 78", async () => {
  await using used = await UsedWorld.create();
  // In a pid namespace of its own the kernel's table of locks shows nobody outside.
  const execute = (args: string[]) =>
    used.world.execute("unshare", [
      "-p",
      "-f",
      "--mount-proc",
      ...STRACE,
      "inject=flock:error=ENOLCK",
      BINARY,
      ...args,
    ]);
  const says = /lockspace \/.*\/lockspace is on a filesystem \(\w+\) that does not offer flock/;
  await assertRefused(used.world, ["check", "--disk", used.disk], { code: 78, says }, { execute });
});

Deno.test("a runtime directory on a filesystem without flock: 78, and the locks are given back", async () => {
  await using used = await UsedWorld.create();
  const { world, disk, start } = used;
  const lock = `${world.runtimeDir}/guests.lock`;
  const args = ["run", ...start, "--", "touch", `${world.directory}/started`];
  // -P: only calls on this file fail; the lockspace is on another filesystem then.
  const result = await world.execute("strace", [
    "-P",
    lock,
    ...STRACE.slice(1),
    "inject=flock:error=ENOLCK",
    BINARY,
    ...args,
  ]);
  assertAnswer(result, { code: 78, says: /guests\.lock: .*flock/ });
  assert.equal((await world.run(["check", "--disk", disk])).code, 0);
  await assert.rejects(Deno.lstat(`${world.directory}/started`), Deno.errors.NotFound);
});

Deno.test("a lockspace whose filesystem fails: 74", async () => {
  await using used = await UsedWorld.create();
  const execute = withFault(used.world, "flock:error=EIO");
  const says = /cannot lock a file in \/.*\/lockspace: input\/output error/;
  await assertNotStarted(used.world, used.start, { code: 74, says }, { execute });
});

/** Fails every look at one file, in whatever way it is looked at. */
function withUnreadable(world: World, path: string, errno: string, env: Record<string, string> = {}) {
  const calls = "faccessat,faccessat2,statx,newfstatat,readlinkat,openat";
  const fault = ["-P", path, ...STRACE.slice(1), `inject=${calls}:error=${errno}`];
  return (args: string[]) => world.execute("strace", [...fault, BINARY, ...args], { env });
}

for (const errno of ["EIO", "ESTALE"]) {
  Deno.test(`a generation file that cannot be read (${errno}) is not taken for one that is not there: 74`, async () => {
    await using used = await UsedWorld.create();
    const execute = withUnreadable(used.world, used.stateFile, errno);
    await assertNotStarted(used.world, used.start, { code: 74, says: /\/state\.json: / }, { execute });
  });
}

Deno.test("a default configuration that may not be read is not taken for one that is not there: 77", async () => {
  await using used = await UsedWorld.create();
  const path = "/etc/lockvisor/lockvisor.toml";
  const execute = withUnreadable(used.world, path, "EACCES", { LOCKVISOR_CONFIG: "" });
  const says = new RegExp(`${path}: permission denied`);
  await assertNotStarted(used.world, used.start, { code: 77, says }, { execute });
});
