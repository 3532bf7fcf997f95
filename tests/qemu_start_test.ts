import assert from "node:assert/strict";
import { must, unstatedBacking } from "./support/qemu_images.ts";
import { openFiles, writtenFiles } from "./support/qemu_reality.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

const QEMU = "qemu-system-x86_64 -S -accel tcg -M pc -m 16 -nodefaults -no-user-config -display none".split(
  " ",
);

function drive(file: string, more = ""): string[] {
  return ["-drive", `file=${file.replaceAll(",", ",,")},format=qcow2,if=virtio${more}`];
}

/** A chain of images: the first has the raw file `base` below it, the last is returned. */
async function chain(directory: string, depth: number): Promise<string[]> {
  await must(directory, "qemu-img", "create", "-q", "-f", "qcow2", "link0", "1M");
  const names = ["link0"];
  for (let level = 1; level <= depth; level++) {
    const name = `link${level}`;
    await must(
      directory,
      "qemu-img",
      "create",
      "-q",
      "-f",
      "qcow2",
      "-b",
      names.at(-1)!,
      "-F",
      "qcow2",
      name,
    );
    names.push(name);
  }
  return names.map((name) => `${directory}/${name}`);
}

/** The disks of a guest by its record, with their access. */
function recorded(world: World, name: string): Record<string, string> {
  for (const { name: file } of Deno.readDirSync(`${world.runtimeDir}/guests`)) {
    if (!file.endsWith(".json")) continue;
    const record = JSON.parse(Deno.readTextFileSync(`${world.runtimeDir}/guests/${file}`));
    if (record.name !== name) continue;
    const resources = record.resources as { name: string; access: string }[];
    return Object.fromEntries(resources.map((resource) => [resource.name, resource.access]));
  }
  throw new Error(`there is no record of ${name}`);
}

/** Waits until QEMU has opened its images. */
async function opened(pid: number, image: string): Promise<void> {
  await until(`QEMU opens ${image}`, () => writtenFiles(pid).has(image));
}

for (const depth of [1, 3, 30]) {
  Deno.test(`a chain of ${depth}: every backing file is locked readonly while QEMU has it`, async () => {
    await using world = await World.create();
    const images = await chain(world.directory, depth);
    const top = images.at(-1)!;
    const guest = await world.startRunning(["run", "--name", "vm1", "--", ...QEMU, ...drive(top)]);
    const backing = images.slice(0, -1);
    assert.deepEqual(recorded(world, "vm1"), {
      ...Object.fromEntries(backing.map((image) => [image, "readonly"])),
      [top]: "exclusive",
    });
    await until("QEMU has all of them open", () => {
      const open = openFiles(guest.pid);
      return images.every((image) => open.has(image));
    });
    const written = writtenFiles(guest.pid);
    for (const image of backing) assert.ok(!written.has(image), `QEMU does not write ${image}`);
    for (const image of backing) {
      const refused = await world.run(["check", "--disk", image]);
      assert.equal(refused.code, 1, image);
    }
    await guest.kill();
    assert.equal((await world.run(["check", ...images.flatMap((image) => ["--disk", image])])).code, 0);
  });
}

Deno.test("ten guests share a base, and whoever wants to write it is refused with all of their names", async () => {
  await using world = await World.create();
  const { directory } = world;
  await must(directory, "qemu-img", "create", "-q", "-f", "qcow2", "base", "1M");
  const names = Array.from({ length: 10 }, (_, index) => `guest${index}`);
  for (const name of names) {
    await must(
      directory,
      "qemu-img",
      "create",
      "-q",
      "-f",
      "qcow2",
      "-b",
      "base",
      "-F",
      "qcow2",
      `${name}.qcow2`,
    );
    await world.startRunning(["run", "--", ...QEMU, "-name", name, ...drive(`${name}.qcow2`)]);
  }
  const writer = await world.run(["run", "--name", "writer", "--", ...QEMU, ...drive("base")]);
  assert.equal(writer.code, 75, writer.stderr);
  for (const name of names) {
    assert.match(writer.stderr, new RegExp(`disk ${directory}/base is locked by .*guest "${name}" \\(pid`));
  }
  const reader = await world.run([
    "run",
    "--name",
    "reader",
    "--disk",
    `${directory}/base,access=readonly`,
    "--",
    "true",
  ]);
  assert.equal(reader.code, 0, reader.stderr);
});

Deno.test("while somebody writes the base, a guest that lies on it is refused with the writer's name", async () => {
  await using world = await World.create();
  const [base, top] = await chain(world.directory, 1);
  await world.startRunning(["run", "--", ...QEMU, "-name", "writer", ...drive(base!)]);
  const refused = await world.run(["run", "--", ...QEMU, "-name", "vm2", ...drive(top!)]);
  assert.equal(refused.code, 75);
  assert.match(
    refused.stderr,
    new RegExp(`^lockvisor: disk ${base} is locked by guest "writer" \\(.*exclusive`),
  );
});

Deno.test("name, UUID and QMP socket come from QEMU's own options", async () => {
  await using world = await World.create();
  const [top] = await chain(world.directory, 0);
  const uuid = "8c1a4b5e-2b6b-4c7e-9d65-3b7c5c0b1f2a";
  const own = [
    "-name",
    "guest=vm7,process=x",
    "-uuid",
    uuid.toUpperCase(),
    "-qmp",
    "unix:q,server=on,wait=off",
  ];
  const guest = await world.startRunning(["run", "--", ...QEMU, ...own, ...drive(top!)]);
  await opened(guest.pid, top!);
  const { guests } = JSON.parse((await world.run(["status", "--json"])).stdout);
  assert.equal(guests.length, 1);
  assert.equal(guests[0].name, "vm7");
  assert.equal(guests[0].uuid, uuid);
  await until("the monitor answers", async () => (await world.run(["resume", "vm7"])).code === 0);
  const stopped = JSON.parse((await world.run(["stop", "vm7", "--json"])).stdout);
  assert.equal(stopped.by, "quit");
});

Deno.test("what is given by hand goes before what QEMU's options say", async () => {
  await using world = await World.create();
  const [top] = await chain(world.directory, 0);
  const own = ["-name", "theirs", "-uuid", "8c1a4b5e-2b6b-4c7e-9d65-3b7c5c0b1f2a"];
  const uuid = "11111111-2222-4333-8444-555555555555";
  const byHand = ["run", "--name", "mine", "--uuid", uuid, "--disk", `${top},access=shared`];
  await world.startRunning([...byHand, "--", ...QEMU, ...own, ...drive(top!)]);
  const { guests } = JSON.parse((await world.run(["status", "--json"])).stdout);
  assert.equal(guests[0].name, "mine");
  assert.equal(guests[0].uuid, uuid);
  assert.deepEqual(recorded(world, "mine"), { [top!]: "shared" });
});

Deno.test("a disk that is given by hand under another name is the same disk", async () => {
  await using world = await World.create();
  const [top] = await chain(world.directory, 0);
  const link = `${world.directory}/symbolic`;
  await Deno.symlink(top!, link);
  await world.startRunning(["run", "--name", "vm1", "--disk", link, "--", ...QEMU, ...drive(top!)]);
  assert.deepEqual(recorded(world, "vm1"), { [link]: "exclusive" });
});

Deno.test("--no-auto leaves QEMU's options alone", async () => {
  await using world = await World.create();
  const [base, top] = await chain(world.directory, 1);
  const nameless = await world.run(["run", "--no-auto", "--", ...QEMU, "-name", "vm1", ...drive(top!)]);
  assert.equal(nameless.code, 64);
  assert.equal(nameless.stderr, "lockvisor: run: the guest needs a name; add --name NAME\n");
  await world.startRunning([
    ..."run --no-auto --name vm1 --disk".split(" "),
    base!,
    "--",
    ...QEMU,
    "-name",
    "other",
    ...drive(top!),
  ]);
  assert.deepEqual(recorded(world, "vm1"), { [base!]: "exclusive" });
});

Deno.test("a QEMU without a name anywhere is refused", async () => {
  await using world = await World.create();
  const { code, stderr } = await world.run(["run", "--", ...QEMU]);
  assert.equal(code, 64);
  assert.equal(
    stderr,
    "lockvisor: run: the guest needs a name; add --name NAME, or -name NAME to QEMU's options\n",
  );
});

Deno.test("QEMU behind launchers, in a directory of its own", async () => {
  await using world = await World.create();
  const [top] = await chain(world.directory, 0);
  const launchers = ["env", `--chdir=${world.directory}`, "A=b", "nice", "-n", "1", "setpriv", "--nnp"];
  const { code, stdout, stderr } = await world.run(
    ["run", "--dry-run", "--json", "--", ...launchers, ...QEMU, "-name", "vm1", ...drive("link0")],
    { cwd: "/" },
  );
  assert.equal(code, 0, stderr);
  const { resources } = JSON.parse(stdout);
  assert.deepEqual(resources.map(({ name, access }: Record<string, string>) => [name, access]), [
    ["guest:" + resources[0].name.slice(6), "exclusive"],
    [top, "exclusive"],
  ]);
});

Deno.test("the base of a disk as a second disk for writing is refused, and --disk overrules that", async () => {
  await using world = await World.create();
  const [base, top] = await chain(world.directory, 1);
  const command = [...QEMU, ...drive(top!), ...drive(base!)];
  const refused = await world.run(["run", "--name", "vm1", "--", ...command]);
  assert.equal(refused.code, 65);
  assert.match(
    refused.stderr,
    new RegExp(
      `^lockvisor: disk ${base} is used twice by this guest: readonly as QEMU's backing file of ${top}, exclusive as QEMU's -drive \\(number 2\\); .*\\n$`,
    ),
  );
  const allowed = await world.run([
    "run",
    "--dry-run",
    "--name",
    "vm1",
    "--disk",
    base!,
    "--",
    ...command,
  ]);
  assert.equal(allowed.code, 0, allowed.stderr);
  const twice = await world.run(["run", "--name", "vm1", "--", ...QEMU, ...drive(top!), ...drive(top!)]);
  assert.equal(twice.code, 65);
  assert.match(
    twice.stderr,
    /is used twice by this guest: exclusive as QEMU's -drive, exclusive as QEMU's -drive/,
  );
});

Deno.test("what stands in a header and cannot be used is an error that names both images", async () => {
  await using world = await World.create();
  const { directory } = world;
  const made = ["create", "-q", "-u", "-f", "qcow2"];
  const over = async (name: string, backing: string, format = "qcow2") => {
    await must(directory, "qemu-img", ...made, "-b", backing, "-F", format, name, "1M");
  };
  await over("missing.qcow2", "gone");
  await must(directory, "mkfifo", "fifo");
  await over("pipe.qcow2", "fifo");
  await over("pipe-raw.qcow2", "fifo", "raw");
  await over("folder.qcow2", ".", "raw");
  await over("loop1.qcow2", "loop2.qcow2");
  await over("loop2.qcow2", "loop1.qcow2");
  await over("self.qcow2", "./self.qcow2");
  await over("scheme.qcow2", "frob://x", "raw");
  await Deno.writeTextFile(`${directory}/text`, "this is no image\n".repeat(100));
  const cases: [string, RegExp][] = [
    ["missing.qcow2", new RegExp(`disk ${directory}/gone does not exist`)],
    ["pipe.qcow2", new RegExp(`disk ${directory}/fifo is neither a regular file nor a block device`)],
    [
      "pipe-raw.qcow2",
      new RegExp(`disk ${directory}/fifo is a named pipe.*backing file of ${directory}/pipe-raw`),
    ],
    [
      "folder.qcow2",
      new RegExp(`disk ${directory}/? is a directory.*backing file of ${directory}/folder.qcow2`),
    ],
    [
      "loop1.qcow2",
      new RegExp(`disk ${directory}/loop1.qcow2: its backing files come back to ${directory}/loop1`),
    ],
    [
      "self.qcow2",
      new RegExp(`disk ${directory}/self.qcow2: its backing files come back to ${directory}/`),
    ],
    ["scheme.qcow2", /backing file of .*scheme.qcow2: the scheme "frob" is not known/],
    ["text", new RegExp(`disk ${directory}/text is no proper qcow2 image: it does not begin as one`)],
    ["fifo", new RegExp(`disk ${directory}/fifo is neither a regular file nor a block device`)],
  ];
  for (const [image, says] of cases) {
    const { code, stderr, stdout } = await world.run([
      "run",
      "--name",
      "vm1",
      "--",
      ...QEMU,
      ...drive(image),
    ]);
    assert.equal(code, 65, `${image}: ${stderr}`);
    assert.match(stderr, says, image);
    assert.match(stderr, /^lockvisor: \P{Cc}+\n$/u, image);
    assert.equal(stdout, "");
  }
});

Deno.test("an image that gets another backing file while the start waits is refused, and nothing stays locked", async () => {
  await using world = await World.create();
  const { directory } = world;
  const [base, top] = await chain(directory, 1);
  await must(directory, "qemu-img", "create", "-q", "-f", "qcow2", "other", "1M");
  const holder = await world.startRunning(["run", "--name", "vm1", "--disk", top!, "--", "sleep", "60"]);
  const waiting = world.start(["run", "--name", "vm2", "--wait", "--", ...QEMU, ...drive(top!)]);
  await until("the waiter catches signals, so it has read the images", () => {
    const status = Deno.readTextFileSync(`/proc/${waiting.pid}/status`);
    return (BigInt(`0x${/SigCgt:\s*([0-9a-f]+)/.exec(status)![1]}`) & (1n << 14n)) !== 0n;
  });
  await must(directory, "qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "other", "-F", "qcow2", top!);
  await holder.kill();
  let ended: { code: number; stderr: string } | undefined;
  waiting.finished().then((result) => ended = result);
  await until("the waiter is refused", () => ended !== undefined);
  const { code, stderr } = ended!;
  assert.equal(code, 75, stderr);
  assert.match(stderr, new RegExp(`^lockvisor: disk ${top} was changed while this start waited`));
  assert.equal((await world.run(["check", "--disk", top!, "--disk", base!])).code, 0);
  const again = await world.startRunning(["run", "--name", "vm2", "--", ...QEMU, ...drive(top!)]);
  assert.deepEqual(recorded(world, "vm2"), { [top!]: "exclusive", [`${directory}/other`]: "readonly" });
  await again.kill();
});

Deno.test("a backing file of unstated format is locked, and not looked into", async () => {
  await using world = await World.create();
  const { directory } = world;
  const [base, middle] = await chain(directory, 1);
  await unstatedBacking(directory, "top", "link1");
  const dryRun = ["run", "--dry-run", "--json", "--name", "vm1", "--"];
  const { code, stdout, stderr } = await world.run([...dryRun, ...QEMU, ...drive(`${directory}/top`)]);
  assert.equal(code, 0, stderr);
  const { resources, qemu } = JSON.parse(stdout);
  const disks = resources.filter(({ type }: { type: string }) => type === "disk");
  assert.deepEqual(disks.map(({ name, access }: Record<string, string>) => [name, access]), [
    [`${directory}/top`, "exclusive"],
    [middle, "readonly"],
  ]);
  assert.ok(!stdout.includes(base!));
  assert.equal(qemu.hints.length, 1);
  assert.match(qemu.hints[0], /^backing file of .*top: the format of .*link1 is not stated/);
});

Deno.test("a dry run tells what was understood, as text and as JSON", async () => {
  await using world = await World.create();
  const { directory } = world;
  const [base, top] = await chain(directory, 1);
  const plain = await world.disk("plain");
  const command = [
    ...QEMU,
    ..."-name vm1 -uuid 8c1a4b5e-2b6b-4c7e-9d65-3b7c5c0b1f2a -qmp unix:q,server=on,wait=off".split(" "),
    ..."-incoming defer -pidfile p -virtfs local,path=/srv,mount_tag=t,security_model=none".split(" "),
    ...drive(top!, ",id=d0"),
    "-hda",
    plain,
  ];
  const text = await world.run(["run", "--dry-run", "--", ...command]);
  assert.equal(text.code, 0, text.stderr);
  assert.equal(text.stderr, "");
  const understood = text.stdout.slice(text.stdout.indexOf("from QEMU's options"));
  assert.equal(
    understood,
    [
      `from QEMU's options: name vm1, uuid 8c1a4b5e-2b6b-4c7e-9d65-3b7c5c0b1f2a, QMP socket ${directory}/q, incoming migration defer, pid file ${directory}/p`,
      `  -drive d0: ${top} (exclusive, qcow2)`,
      `  backing file of ${top}: ${base} (readonly, qcow2)`,
      `  -hda: ${plain} (exclusive, format not stated)`,
      `  not locked: -virtfs: a directory, which is no disk`,
      `  hint: -hda: the format of ${plain} is not stated, so its backing files are not looked for; state it (format=raw, format=qcow2), as QEMU advises`,
      "",
    ].join("\n"),
  );
  const json = await world.run(["run", "--dry-run", "--json", "--", ...command]);
  const { qemu } = JSON.parse(json.stdout);
  assert.deepEqual({ ...qemu, hints: qemu.hints.length }, {
    name: "vm1",
    uuid: "8c1a4b5e-2b6b-4c7e-9d65-3b7c5c0b1f2a",
    qmp: `${directory}/q`,
    incoming: "defer",
    daemonize: false,
    pidfile: `${directory}/p`,
    disks: [
      { name: top, access: "exclusive", origin: "-drive d0", format: "qcow2" },
      { name: base, access: "readonly", origin: `backing file of ${top}`, format: "qcow2" },
      { name: plain, access: "exclusive", origin: "-hda", format: null },
    ],
    ignored: ["-virtfs: a directory, which is no disk"],
    hints: 1,
  });
  const other = JSON.parse(
    (await world.run(["run", "--dry-run", "--json", "--name", "x", "--", "true"])).stdout,
  );
  assert.deepEqual(Object.keys(other), ["resources"], "nothing about QEMU where there is none");
});

Deno.test("a dry run shows no password of a network disk", async () => {
  await using world = await World.create();
  const disk = "file=iscsi://user%secret@portal/iqn.2001-04.com.example:t/1,if=none";
  for (const format of ["text", "json"]) {
    const args = ["run", "--dry-run", ...format === "json" ? ["--json"] : [], "--name", "vm1", "--", ...QEMU];
    const { code, stdout, stderr } = await world.run([...args, "-drive", disk, "-drive", disk]);
    assert.equal(code, 65, "the same disk twice");
    assert.match(stderr, /disk iscsi:\/\/portal\/iqn.2001-04.com.example:t\/1 is used twice/);
    assert.doesNotMatch(stdout + stderr, /secret/);
    const once = await world.run([...args, "-drive", disk]);
    assert.equal(once.code, 0, once.stderr);
    assert.match(once.stdout, /iscsi:\/\/portal\/iqn.2001-04.com.example:t\/1/);
    assert.doesNotMatch(once.stdout + once.stderr, /secret/);
  }
});

Deno.test("without qemu-img a format that only it can read is refused", async () => {
  await using world = await World.create();
  await must(world.directory, "qemu-img", "create", "-q", "-f", "vmdk", "a.vmdk", "1M");
  const run = ["run", "--name", "vm1", "--", `/usr/bin/${QEMU[0]}`, ...QEMU.slice(1)];
  const command = [...run, "-drive", "file=a.vmdk,format=vmdk"];
  const without = await world.run(command, { env: { PATH: "/nowhere" } });
  assert.equal(without.code, 65);
  assert.match(
    without.stderr,
    /a\.vmdk: which other files its vmdk image has cannot be told without qemu-img; install it/,
  );
  await Deno.writeTextFile(`${world.directory}/a.vmdk`, "damaged");
  const damaged = await world.run(command);
  assert.equal(damaged.code, 65);
  assert.match(damaged.stderr, /a\.vmdk: its vmdk image cannot be read: qemu-img: /);
});

Deno.test("an image that may not be read is told as that", async () => {
  await using world = await World.create();
  const [top] = await chain(world.directory, 0);
  const { code, stderr } = await world.run(["run", "--name", "vm1", "--", ...QEMU, ...drive(`${top}/below`)]);
  assert.equal(code, 65, stderr);
  assert.match(stderr, /a component of the path is not a directory/);
});
