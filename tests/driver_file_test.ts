import assert from "node:assert/strict";
import { installModule, WHOLE_GUESTS_MODULE } from "./conformance/candidate.ts";
import { writeModule } from "./support/driver_module.ts";
import { flockedFiles } from "./support/kernel.ts";
import { assertNotStarted } from "./support/refused.ts";
import { World } from "./support/world.ts";

const ROOT = new URL("..", import.meta.url).pathname;

Deno.test("the text of docs/plugins.md is the driver that conforms", async () => {
  const page = await Deno.readTextFile(`${ROOT}/docs/plugins.md`);
  const [, text] = /^```js\n(.*?)^```$/ms.exec(page) ?? [];
  assert.equal(text, await Deno.readTextFile(WHOLE_GUESTS_MODULE));
});

Deno.test("a guest of a driver in a file: started by a relative path, shown, attached, stopped", async () => {
  await using world = await World.create();
  const file = await installModule(world, WHOLE_GUESTS_MODULE);
  const relative = ["--plugin", "./plugins/whole_guests.js"];
  const guest = await world.startRunning(["run", ...relative, "--name", "vm1", "--", "sleep", "60"]);
  assert.equal(flockedFiles(guest.pid).length, 1);
  const status = JSON.parse((await world.run(["status", "--json"])).stdout);
  assert.equal(status.guests[0].plugin, file, "the record names the plugin wherever we stand");
  assert.match((await world.run(["status"], { cwd: "/" })).stdout, /^vm1 +running +\d+ .* 1\/1 /m);
  const attached = await world.run(["attach", "vm1", "--json"], { cwd: "/" });
  assert.equal(attached.code, 0, attached.stderr);
  assert.deepEqual(JSON.parse(attached.stdout).guests[0].locked, true);
  const twice = await world.run(["run", ...relative, "--name", "vm1", "--", "true"]);
  assert.equal(twice.code, 75);
  assert.match(twice.stderr, new RegExp(`is locked by guest "vm1" \\(pid ${guest.pid}\\b`));
  for (
    const [ability, ...command] of [
      ["hotplug", "acquire", "vm1", "--lease", "cluster:db"],
      ["hotplug", "release", "vm1", "--lease", "cluster:db"],
      ["pause", "pause", "vm1"],
      ["pause", "pause", "vm1", "--release"],
      ["pause", "resume", "vm1"],
    ]
  ) {
    const refused = await world.run(command);
    assert.equal(refused.code, 69, command.join(" "));
    assert.match(refused.stderr, new RegExp(`plugin ${file} does not offer ${ability}\n$`));
  }
  const stopped = await world.run(["stop", "vm1"], { cwd: "/" });
  assert.deepEqual([stopped.code, stopped.stderr], [0, ""]);
  assert.match(stopped.stdout, /its 1 locks are free/);
  assert.equal((await world.run(["status"])).stdout, "no guests\n");
});

Deno.test("a dry run with a driver that cannot tell beforehand is refused", async () => {
  await using world = await World.create();
  const file = await installModule(world, WHOLE_GUESTS_MODULE);
  await assertNotStarted(world, ["--plugin", file, "--name", "vm1", "--dry-run"], {
    code: 69,
    says: /plugin .*whole_guests\.js cannot tell beforehand what it would lock/,
  });
});

Deno.test("a plugin that has vanished: its guests are shown, attached and stopped, and it is said", async () => {
  await using world = await World.create();
  const file = await installModule(world, WHOLE_GUESTS_MODULE);
  const guest = await world.startRunning(["run", "--plugin", file, "--name", "vm1", "--", "sleep", "60"]);
  const other = await world.startRunning(["run", "--name", "vm2", "--", "sleep", "60"]);
  await Deno.remove(file);
  const gone = new RegExp(`^lockvisor: warning: .*plugin ${file}: there is no such file\n$`);

  const status = await world.run(["status"]);
  assert.equal(status.code, 0);
  assert.match(status.stdout, /^vm1 .* 0\/1 \(1 \?\) /m);
  assert.match(status.stdout, /^vm2 .* 1\/1 /m);
  assert.match(status.stderr, gone);

  const attached = await world.run(["attach"]);
  assert.equal(attached.code, 0, attached.stderr);
  assert.match(
    attached.stdout,
    new RegExp(`^guest "vm1" .* is process ${guest.pid}: its locks are not shown`, "m"),
  );
  assert.match(attached.stdout, new RegExp(`^guest "vm2" .* is process ${other.pid}: locked$`, "m"));
  assert.match(attached.stderr, gone);
  const named = await world.run(["attach", "vm1", "--json"]);
  assert.equal(named.code, 0, named.stderr);
  const [shown] = JSON.parse(named.stdout).guests;
  assert.deepEqual([shown.pid, shown.locked, shown.lost], [guest.pid, null, []]);
  assert.match(shown.warnings[0], /there is no such file/);

  for (const command of [["acquire", "vm1", "--lease", "a:b"], ["pause", "vm1"], ["resume", "vm1"]]) {
    const refused = await world.run(command);
    assert.equal(refused.code, 69);
    assert.match(refused.stderr, /^lockvisor: plugin .*: there is no such file\n$/);
  }
  const doctor = await world.run(["doctor"]);
  assert.equal(doctor.code, 1);
  assert.match(doctor.stdout, /^failure +plugins +plugin .*there is no such file/m);

  const stopped = await world.run(["stop", "vm1"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.match(stopped.stderr, gone);
  assert.match(stopped.stdout, /has stopped .*cannot be known from here/);
  assert.equal((await guest.finished()).signal, "SIGTERM");
  const after = await world.run(["status", "--names"]);
  assert.deepEqual([after.stdout, after.stderr], ["vm2\n", ""]);
});

Deno.test("from source a driver may be written in TypeScript", async () => {
  await using world = await World.create();
  const text = (await Deno.readTextFile(WHOLE_GUESTS_MODULE))
    .replace(
      "export default {",
      `import type { DriverDefinition } from "${ROOT}lib/driver/contract.ts";\nconst definition: DriverDefinition = {`,
    )
    .replace(/^};$/m, "};\nexport default definition;");
  const file = await writeModule(world, text, "driver.ts");
  const run = (args: string[]) =>
    world.execute(Deno.execPath(), ["run", "-A", "--no-check", `${ROOT}/main.ts`, ...args], {
      env: { DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno` },
    });
  const script = `cat /proc/$$/fdinfo/* 2>/dev/null | grep -c FLOCK; exit 7`;
  const { code, stdout, stderr } = await run([
    "run",
    "--plugin",
    file,
    "--name",
    "vm1",
    "--",
    "sh",
    "-c",
    script,
  ]);
  assert.deepEqual([code, stdout, stderr], [7, "1\n", ""]);
  const compiled = await world.run(["run", "--plugin", file, "--name", "vm1", "--", "true"]);
  assert.equal(compiled.code, 69);
  assert.match(
    compiled.stderr,
    /cannot be loaded: .*; the compiled program reads JavaScript modules only\n$/,
  );
});

Deno.test("the example refuses a lockspace that is missing, and a folder for its locks that others may write", async () => {
  await using world = await World.create();
  const file = await installModule(world, WHOLE_GUESTS_MODULE);
  const start = (args: string[]) =>
    world.run(["run", "--plugin", file, "--name", "vm1", ...args, "--", "true"]);
  const nowhere = await start([`--lockspace=${world.directory}/nowhere`]);
  assert.equal(nowhere.code, 78);
  assert.match(nowhere.stderr, /there is no lockspace .*nowhere; make it: lockvisor init /);
  assert.equal((await start([])).code, 0);
  await Deno.chmod(`${world.lockspace}/whole-guests`, 0o770);
  const unsafe = await start([]);
  assert.equal(unsafe.code, 77);
  assert.match(unsafe.stderr, /whole-guests is not a folder of uid \d+ that nobody else may write/);
});
