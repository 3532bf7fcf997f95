import assert from "node:assert/strict";
import { COMMANDS } from "../lib/cli/commands.ts";
import { EXIT_STATUSES } from "../lib/cli/help.ts";
import { assertErrorObject } from "./support/guest_commands.ts";
import { PlugScene, SCSI_DEVICE } from "./support/plug_scene.ts";
import { BINARY, type Finished, World } from "./support/world.ts";

/*
 * What every command writes where: results on standard output, as one JSON object with --json, errors too; and what
 * becomes of it when the output cannot be written.
 */

/**
 * The agent prints no results, nor does who becomes a command that waits for a guest. A whole migration needs two hosts and
 * prints a line for each step, and its other end talks to it: migrate_run_test.ts.
 */
const WITHOUT_RESULTS = ["daemon", "migrate in", "migrate run", "migrate receive"];
const PRINTING = COMMANDS.filter(({ name }) => !WITHOUT_RESULTS.includes(name));
const WITH_JSON = PRINTING.filter(({ options }) => options.some(({ name }) => name === "json"));

/** A world with a guest that runs, and for every command arguments with which it does its work. */
async function workingWorld() {
  const world = await World.create();
  const [held, spare] = [await world.disk("held"), await world.disk("spare")];
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", held, "--", "sleep", "600"]);
  await PlugScene.start(world, "vm3");
  const works: Record<string, string[]> = {
    init: [`${world.directory}/new`],
    run: ["--name", "vm2", "--disk", spare, "--dry-run", "--", "true"],
    wait: ["past"],
    status: [],
    inspect: [held],
    check: ["--disk", spare],
    break: [spare, "--reason", "test"],
    gc: ["--dry-run"],
    doctor: [],
    version: [],
    attach: [],
    adopt: ["--pid", String(guest.pid), "--name", "vm1"],
    acquire: ["vm1", "--disk", spare],
    release: ["vm1", "--disk", spare],
    "disk plug": ["vm3", spare, "--id", "d1", "--device", SCSI_DEVICE],
    "disk unplug": ["vm3", "d1"],
    "disk snapshot": ["vm3", "d0", `${world.directory}/overlay`],
    "disk commit": ["vm3", "d0", "--speed", "10G"],
    "disk mirror": ["vm3", "d0", `${world.directory}/copy`, "--finish", "copy"],
    "disk backup": ["vm3", "d0", `${world.directory}/backup`],
    "disk abort": ["vm3", `${world.directory}/vm3.boot`],
    reconcile: ["vm3", "--dry-run"],
    pause: ["vm1"],
    resume: ["vm1"],
    stop: ["past"],
    "migrate prepare": ["vm1", "--to", "ssh://hv2"],
    "migrate complete": ["past"],
    "migrate cancel": ["vm1"],
    "migrate status": [],
    "migrate cleanup": [],
  };
  const past = await world.run(["run", "--name", "past", "--", "true"]);
  assert.equal(past.code, 0, past.stderr);
  return { world, held, works };
}

/** For every command arguments with which it refuses. */
const REFUSED: Record<string, string[]> = {
  init: ["/proc/nowhere"],
  run: ["--name", "vm2", "--disk", "/nowhere", "--", "true"],
  stop: ["nobody"],
  wait: ["nobody"],
  status: ["nobody"],
  inspect: ["/nowhere"],
  check: ["--disk", "/nowhere"],
  break: ["nobody", "--reason", "test"],
  gc: ["--lockspace", "/nowhere"],
  doctor: ["--bogus"],
  version: ["--bogus"],
  attach: ["nobody"],
  adopt: ["--pid", "1", "--name", "vm2", "--disk", "/nowhere"],
  acquire: ["nobody", "--disk", "/nowhere"],
  release: ["nobody", "--disk", "/nowhere"],
  "disk plug": ["nobody", "/nowhere"],
  "disk unplug": ["nobody", "d1"],
  "disk snapshot": ["nobody", "d1", "/nowhere"],
  "disk commit": ["nobody", "d1"],
  "disk mirror": ["nobody", "d1", "/nowhere"],
  "disk backup": ["nobody", "d1", "/nowhere"],
  "disk abort": ["nobody", "d1"],
  reconcile: ["nobody"],
  pause: ["nobody"],
  resume: ["nobody"],
  "migrate prepare": ["nobody", "--to", "ssh://hv2"],
  "migrate complete": ["nobody"],
  "migrate cancel": ["nobody"],
  "migrate status": ["nobody"],
  "migrate cleanup": ["--bogus"],
};

/** A command with what follows its name. */
function commandLine(name: string, ...args: string[]): string[] {
  return [...name.split(" "), ...args];
}

/** Runs lockvisor with a redirection of the shell. */
function redirected(world: World, redirection: string, args: string[]): Promise<Finished> {
  return world.execute("bash", ["-c", `${redirection.replace("LOCKVISOR", '"$0" "$@"')}`, BINARY, ...args]);
}

/** The reader has gone before anything is written. */
const CLOSED_PIPE = "exec {pipe}> >(exec true); wait $!; LOCKVISOR >&$pipe";

Deno.test("with --json every command prints one JSON object, for its results and for an error", async () => {
  const { world, works } = await workingWorld();
  await using _ = world;
  for (const { name } of WITH_JSON) {
    const done = await world.run(commandLine(name, "--json", ...works[name]!));
    assert.ok([0, 1].includes(done.code), `${name}: ${done.stderr}`);
    assert.match(done.stdout, /^\{[^\n]+\}\n$/, name);
    assert.equal("error" in JSON.parse(done.stdout), false, name);
    const refused = await world.run(commandLine(name, "--json", ...REFUSED[name]!));
    assert.ok(
      EXIT_STATUSES.some(([status]) => Number(status) === refused.code && refused.code >= 64),
      `${name}: ${refused.code}`,
    );
    assertErrorObject(refused, name);
    const asText = await world.run(commandLine(name, ...REFUSED[name]!));
    assert.deepEqual({ ...asText }, { ...refused, stdout: "" }, name);
  }
});

Deno.test("results that cannot be written: 74 from every command, or what went wrong before", async () => {
  const { world, works } = await workingWorld();
  await using _ = world;
  for (const { name } of PRINTING) {
    const args = commandLine(name, ...works[name] ?? ["bash"]);
    const full = await redirected(world, "LOCKVISOR > /dev/full", args);
    assert.equal(full.code, 74, `${name}: ${full.stderr}`);
    assert.match(
      full.stderr,
      /^(lockvisor: warning: .*\n)*lockvisor: cannot write the results: no space is left [^\n]+\n$/,
      name,
    );
  }
  for (const args of [["--help"], ["stop", "--help"], ["status", "--json"], ["--version"]]) {
    const full = await redirected(world, "LOCKVISOR > /dev/full", args);
    assert.equal(full.code, 74, args.join(" "));
    assert.match(full.stderr, /^lockvisor: cannot write the results: [^\n]+\n$/);
  }
});

Deno.test("an error keeps its exit status and its line where neither output nor JSON can be written", async () => {
  await using world = await World.create();
  const line = 'lockvisor: no guest "nobody" runs on this host; see: lockvisor status\n';
  for (const args of [["stop", "nobody"], ["stop", "nobody", "--json"]]) {
    for (const redirection of ["LOCKVISOR > /dev/full", CLOSED_PIPE, "LOCKVISOR >&-"]) {
      const result = await redirected(world, redirection, args);
      assert.deepEqual(
        { code: result.code, stderr: result.stderr },
        { code: 65, stderr: line },
        `${redirection} ${args}`,
      );
    }
    for (
      const redirection of [
        "LOCKVISOR 2> /dev/full",
        "LOCKVISOR 2>&-",
        CLOSED_PIPE.replace(">&$pipe", "2>&$pipe"),
      ]
    ) {
      const result = await redirected(world, redirection, args);
      assert.equal(result.code, 65, `${redirection} ${args}: ${result.stderr}`);
      if (args.includes("--json")) assert.equal(JSON.parse(result.stdout).error.code, "data");
      else assert.equal(result.stdout, "");
    }
  }
});

Deno.test("a reader that has gone ends every command with 141 and without a word", async () => {
  const { world, works } = await workingWorld();
  await using _ = world;
  for (const { name } of PRINTING) {
    const result = await redirected(world, CLOSED_PIPE, commandLine(name, ...works[name] ?? ["bash"]));
    assert.equal(result.code, 141, `${name}: ${result.stderr}`);
    assert.match(result.stderr, /^(lockvisor: warning: .*\n)*$/, name);
  }
});

Deno.test("a warning that cannot be written does not cut off what is done", async () => {
  const { world, held } = await workingWorld();
  await using _ = world;
  const released = await world.run(["release", "vm1", "--disk", held]);
  assert.equal(released.code, 0, released.stderr);
  for (const redirection of ["LOCKVISOR 2> /dev/full", CLOSED_PIPE.replace(">&$pipe", "2>&$pipe")]) {
    const again = await redirected(world, redirection, ["release", "vm1", "--disk", held]);
    assert.deepEqual([again.code, again.stderr], [0, ""]);
    assert.match(again.stdout, /was not locked for guest "vm1"/);
  }
});
