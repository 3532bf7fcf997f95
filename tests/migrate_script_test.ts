import assert from "node:assert/strict";
import { flockedFiles } from "./support/kernel.ts";
import { statusIn, TwoHosts } from "./support/two_hosts.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { BINARY, type Finished } from "./support/world.ts";

const SCRIPT = new URL("../docs/examples/migrate.sh", import.meta.url).pathname;

/** Runs the script of docs/migration.md where vm1 is. What runs a command at the destination has its environment. */
async function moveByScript(scene: TwoHosts, command: string[]): Promise<Finished> {
  const { source, destination } = scene;
  const bin = `${source.directory}/bin`;
  await Deno.mkdir(bin);
  await Deno.mkdir(temporaries(scene));
  await Deno.symlink(BINARY, `${bin}/lockvisor`);
  const settings = Object.entries(destination.environment).filter(([name]) => name !== "PATH")
    .map(([name, value]) => `${name}='${value}'`);
  await Deno.writeTextFile(`${bin}/there`, `#!/bin/sh\nexec env ${settings.join(" ")} "$@"\n`, {
    mode: 0o755,
  });
  return await source.execute(SCRIPT, [], {
    env: {
      PATH: `${bin}:${Deno.env.get("PATH")}`,
      TMPDIR: temporaries(scene),
      GUEST: "vm1",
      QMP: scene.socketOf("out"),
      THERE: `${bin}/there`,
      THERE_QMP: scene.socketOf("in"),
      STREAM: `unix:${scene.stream}`,
      COMMAND: command.map((word) => `'${word}'`).join(" "),
    },
  });
}

/** Where the script has its temporary files. */
function temporaries({ source }: TwoHosts): string {
  return `${source.directory}/tmp`;
}

/** Ends what the script has started at the destination. */
async function endDestination({ destination }: TwoHosts): Promise<void> {
  const { code, stderr } = await destination.run(["stop", "vm1"]);
  assert.equal(code, 0, stderr);
}

Deno.test("the script of docs/migration.md moves a guest to another host, with all its locks", async () => {
  await using scene = await TwoHosts.create();
  const leaving = await scene.startQemu();
  const done = await moveByScript(scene, qemuCommand(scene.disk));
  assert.equal(done.code, 0, done.stderr + done.stdout);
  try {
    assert.match(done.stderr, /vm1: has moved\n$/);
    assert.deepEqual(await statusIn(scene.source), []);
    const [guest, ...others] = await statusIn(scene.destination);
    assert.deepEqual([guest!.state, others], ["running", []]);
    const files = flockedFiles(guest!.pid);
    assert.equal(files.filter((file) => file.endsWith(".a")).length, files.length / 2);
    assert.equal(await scene.runState("in"), "running");
    assert.equal((await leaving.finished()).code, 0, "its QEMU has quit");
    assert.deepEqual([...Deno.readDirSync(temporaries(scene))], [], "no ticket is left");
  } finally {
    await endDestination(scene);
  }
});

Deno.test("the script of docs/migration.md: a guest that the destination cannot take stays, with all its locks", async () => {
  await using scene = await TwoHosts.create();
  const leaving = await scene.startQemu();
  const other = qemuCommand(scene.disk).map((word) => word === "16" ? "32" : word);
  const done = await moveByScript(scene, other);
  assert.equal(done.code, 1, done.stderr + done.stdout);
  assert.match(done.stderr, /the guest stays here/);
  assert.deepEqual(await statusIn(scene.destination), []);
  assert.deepEqual((await statusIn(scene.source)).map(({ state, pid }) => [state, pid]), [[
    "running",
    leaving.pid,
  ]]);
  const files = flockedFiles(leaving.pid);
  assert.equal(files.filter((file) => file.endsWith(".b")).length, files.length / 2);
  await until("it runs on", async () => await scene.runState("out") === "running");
});

Deno.test("the script of docs/migration.md: a destination that does not start changes nothing", async () => {
  await using scene = await TwoHosts.create();
  const leaving = await scene.startQemu();
  const done = await moveByScript(scene, ["qemu-system-x86_64", "-no-such-option"]);
  assert.equal(done.code, 1, done.stderr + done.stdout);
  assert.match(done.stderr, /-no-such-option[^]*the guest stays here/);
  assert.deepEqual((await statusIn(scene.source)).map(({ state, pid }) => [state, pid]), [[
    "running",
    leaving.pid,
  ]]);
  assert.equal(await scene.runState("out"), "running");
});
