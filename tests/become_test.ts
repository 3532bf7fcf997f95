import assert from "node:assert/strict";
import { lockFiles, snapshot } from "./support/kernel.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { BINARY, World } from "./support/world.ts";

/** What a shell sees of itself: signals, descriptors, environment, working directory, limits, umask. */
const SELF_PORTRAIT = `
  grep -E '^(Sig|Shd|Umask|Threads|NoNewPrivs|Seccomp|Cap|CoreDumping|Groups|Uid|Gid)' /proc/$$/status | grep -v SigCgt | grep -v SigQ
  ls -l /proc/self/fd/ | sed 's/.* \\([0-9]* -> \\)/\\1/; s/:.[0-9]*.$//; s/proc.[0-9]*/proc/' | grep -v lockspace
  env | sort; pwd; ulimit -S -a; ulimit -H -a
  cat /proc/$$/oom_score_adj /proc/$$/coredump_filter /proc/$$/personality /proc/$$/timerslack_ns /proc/$$/cgroup
`;

/** Signals 32 and 33 belong to the C library's threads: no program may set them, so nobody can hand them on. */
function withoutThreadSignals(portrait: string): string {
  return portrait.replace(/^(Sig\w+:\s*)([0-9a-f]{16})$/gm, (_, name: string, mask: string) => {
    return name + (BigInt(`0x${mask}`) & ~(3n << 31n)).toString(16);
  });
}

Deno.test("the command sees no trace of the runtime", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const with_ = await world.run(["run", "--name", "vm1", "--disk", disk, "--", "sh", "-c", SELF_PORTRAIT]);
  const without = await world.execute("sh", ["-c", SELF_PORTRAIT]);
  assert.equal(with_.code, 0, with_.stderr);
  assert.equal(withoutThreadSignals(with_.stdout), withoutThreadSignals(without.stdout));
  assert.equal(with_.stderr, "");
});

/** Runs its arguments without what was inherited: tests that run beside may have descriptors open for an instant. */
const WITHOUT_INHERITED =
  `for each in /proc/$$/fd/*; do n=\${each##*/}; [ "$n" -le 2 ] || eval "exec $n>&-"; done; exec "$0" "$@"`;

Deno.test("the command has the locks' descriptors and no other more", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const list = (...command: string[]) => world.execute("bash", ["-c", WITHOUT_INHERITED, ...command]);
  const plain = await list("ls", "/proc/self/fd");
  const listing = ["ls", "-l", "/proc/self/fd"];
  const { code, stdout, stderr } = await list(
    BINARY,
    "run",
    "--name",
    "vm1",
    "--disk",
    disk,
    "--",
    ...listing,
  );
  assert.equal(code, 0, stderr);
  const open = stdout.trim().split("\n").filter((line) => line.includes(" -> "));
  assert.equal(open.filter((line) => /\/lockspace\/[0-9a-f]{64}\.[ab]$/.test(line)).length, 6);
  assert.equal(open.length, plain.stdout.trim().split("\n").length + 6, stdout);
});

Deno.test("the command keeps pid, exit status, arguments and streams", async () => {
  await using world = await World.create();
  const script = `printf '%s|' "$@"; cat; echo err >&2; exit 7`;
  const args = ["a b", "", "--", "--json", "ü", "$HOME", "new\nline"];
  const result = await world.run(["run", "--name", "vm1", "--", "sh", "-c", script, "sh", ...args], {
    stdin: "given",
  });
  assert.equal(result.code, 7);
  assert.equal(result.stdout, args.map((argument) => argument + "|").join("") + "given");
  assert.equal(result.stderr, "err\n");
  const own = await world.run(["run", "--name", "vm1", "--", "sh", "-c", "echo $PPID"]);
  assert.equal(own.stdout, `${Deno.pid}\n`, "no process stands between us and the command");
});

Deno.test("a QEMU guest has the threads and the memory that it has without us", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const guest = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--disk",
    disk,
    "--",
    ...qemuCommand(disk),
  ]);
  const mapped = (pid: number) => Deno.readTextFileSync(`/proc/${pid}/maps`);
  const counted = (pid: number) => {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    return {
      threads: Number(/^Threads:\s+(\d+)/m.exec(status)?.[1]),
      // Its own pages only: how many pages of its program's file are mapped depends on what the page cache had.
      ownMemoryKiB: Number(/^RssAnon:\s+(\d+)/m.exec(status)?.[1]),
    };
  };
  const other = await world.qcow2("b.qcow2");
  const [program, ...args] = qemuCommand(other) as [string, ...string[]];
  const plain = new Deno.Command(program, { args, stdin: "null", stdout: "null", stderr: "null" }).spawn();
  try {
    const settled = (pid: number) =>
      until(`QEMU ${pid} is up`, () => {
        try {
          return Deno.readLinkSync(`/proc/${pid}/exe`).includes("qemu") && counted(pid).threads >= 3;
        } catch {
          return false;
        }
      });
    await Promise.all([settled(guest.pid), settled(plain.pid)]);
    assert.doesNotMatch(mapped(guest.pid), /lockvisor|libdl.*deno/);
    let [ours, theirs] = [counted(guest.pid), counted(plain.pid)];
    // QEMU's worker threads end when they have had nothing to do for ten seconds.
    await until("both have the same threads and memory", () => {
      [ours, theirs] = [counted(guest.pid), counted(plain.pid)];
      return ours.threads === theirs.threads &&
        Math.abs(ours.ownMemoryKiB - theirs.ownMemoryKiB) < Math.max(theirs.ownMemoryKiB / 20, 1024);
    }, 60_000);
    assert.equal(ours.threads, theirs.threads);
  } finally {
    plain.kill("SIGKILL");
    await plain.status;
  }
});

Deno.test("a command that is not there or not executable is refused before anything is locked", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await Deno.writeTextFile(`${world.directory}/text`, "x");
  const before = snapshot(world.lockspace);
  const missing = await world.run(["run", "--name", "vm1", "--disk", disk, "--", "/no/such/command"]);
  assert.equal(missing.code, 127);
  assert.match(missing.stderr, /^lockvisor: cannot run \/no\/such\/command: there is no such command/);
  const text = await world.run(["run", "--name", "vm1", "--disk", disk, "--", `${world.directory}/text`]);
  assert.equal(text.code, 126);
  assert.deepEqual(snapshot(world.lockspace), before);
});

Deno.test("a command that the kernel refuses gives locks and record back", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await Deno.writeTextFile(`${world.directory}/orphan`, "#!/no/such/interpreter\n", { mode: 0o755 });
  await Deno.mkdir(`${world.directory}/bin/folder`, { recursive: true });
  const cases: [string, number][] = [
    [`${world.directory}/orphan`, 127],
    ["no-such-command-in-path", 127],
    ["folder", 126],
  ];
  for (const [command, code] of cases) {
    const env = { PATH: `${world.directory}/bin` };
    const result = await world.run(["run", "--name", "vm1", "--disk", disk, "--", command], { env });
    assert.equal(result.code, code, `${command}: ${result.stderr}`);
    assert.match(result.stderr, /^lockvisor: cannot run .*all locks were given back\n$/);
    assert.equal((await world.run(["status", "--json"])).stdout, '{"guests":[]}\n');
    const inspected = JSON.parse((await world.run(["inspect", "--json", disk])).stdout);
    assert.deepEqual([inspected.locked, inspected.holders], [false, []]);
    const notes = lockFiles(world.lockspace).filter((name) => name.endsWith(".a"))
      .flatMap((name) => [...Deno.readDirSync(`${world.lockspace}/${name.slice(0, -2)}.d`)])
      .map((entry) => entry.name);
    assert.deepEqual(new Set(notes), new Set(["state.json"]), "no note is left");
  }
});

Deno.test("commands that lose the locks are refused with the order that works", async () => {
  await using world = await World.create();
  const cases: [string[], RegExp][] = [
    [["sudo", "qemu"], /sudo closes inherited descriptors.*setpriv/],
    [["/usr/bin/sudo", "-u", "qemu", "x"], /sudo/],
    [["env", "A=1", "nice", "-n", "5", "doas", "x"], /doas/],
    [["systemd-run", "qemu"], /systemd-run --scope/],
    [["docker", "run", "image"], /inside the container/],
    [["podman", "--log-level=debug", "run", "image"], /inside the container/],
  ];
  for (const [command, text] of cases) {
    const result = await world.run(["run", "--name", "vm1", "--", ...command]);
    assert.equal(result.code, 64, command.join(" "));
    assert.match(result.stderr, text);
  }
  await Deno.writeTextFile(`${world.directory}/sudo`, "#!/bin/sh\necho ran\n", { mode: 0o755 });
  const forced = await world.run([
    "run",
    "--force-command",
    "--name",
    "vm1",
    "--",
    `${world.directory}/sudo`,
  ]);
  assert.equal(forced.stdout, "ran\n");
});

Deno.test("no command of the program opens a network socket", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const commands = [
    ["version"],
    ["--help"],
    ["init", `${world.directory}/other`],
    ["run", "--name", "vm1", "--disk", disk, "--", "true"],
    ["status", "--json"],
    ["inspect", disk],
    ["check", "--disk", disk],
  ];
  for (const command of commands) {
    const log = `${world.directory}/trace`;
    const traced = await world.execute("strace", [
      "-f",
      "-o",
      log,
      "-e",
      "trace=socket,connect,bind",
      BINARY,
      ...command,
    ]);
    assert.equal(traced.code, 0, `${command}: ${traced.stderr}`);
    const trace = await Deno.readTextFile(log);
    assert.match(trace, /exited with 0/, "strace saw the end");
    assert.doesNotMatch(trace, /socket\(|connect\(|bind\(/, command.join(" "));
  }
});
