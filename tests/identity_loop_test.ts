import assert from "node:assert/strict";
import { LockvisorError } from "../lib/errors.ts";
import { readBlockDevice } from "../lib/identity/block_device.ts";
import { type ResolvedResource, resolveResource } from "../lib/identity/resource.ts";

const HOST = "hv1";

function resolve(name: string): ResolvedResource {
  return resolveResource({ type: "disk", name, access: "exclusive" }, { hostId: HOST, storage: [] });
}

function run(command: string, ...args: string[]): string {
  const { success, stdout, stderr } = new Deno.Command(command, { args }).outputSync();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${text(stderr)}`);
  return text(stdout);
}

/** Loop devices over files in a directory of the test's own; all are detached at the end, the last one first. */
class Loops implements Disposable {
  readonly path = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-loop-" }));
  readonly #devices: string[] = [];

  constructor() {
    if (Deno.uid() !== 0) throw new Error("this test sets up loop devices and must be run as root");
  }

  [Symbol.dispose](): void {
    for (const device of this.#devices.reverse()) run("losetup", "-d", device);
    Deno.removeSync(this.path, { recursive: true });
  }

  image(name: string): string {
    const path = `${this.path}/${name}`;
    run("truncate", "-s", "8M", path);
    return path;
  }

  /** A loop device over a file or another block device, `/dev/loopN`. */
  attach(file: string): string {
    const device = run("losetup", "--find", "--show", file);
    this.#devices.push(device);
    return device;
  }
}

function numberOf(device: string): { major: number; minor: number } {
  const [major, minor] = run("stat", "-c", "%Hr:%Lr", device).split(":").map(Number);
  return { major: major!, minor: minor! };
}

Deno.test("loop device: the same disk as the file behind it, under any name", () => {
  using loops = new Loops();
  const image = loops.image("a b.img");
  const device = loops.attach(image);
  const second = loops.attach(device);
  Deno.symlinkSync(device, `${loops.path}/link`);
  const { identities, onNetworkStorage } = resolve(image);
  assert.equal(identities.length, 2);
  for (const name of [device, second, `${loops.path}/link`, `host_device:${device}`]) {
    assert.deepEqual(resolve(name).identities, identities, name);
  }
  assert.equal(onNetworkStorage, false);
  assert.equal(resolve(`${loops.path}/link`).name, `${loops.path}/link`);
});

Deno.test("loop device: a node made elsewhere with the same number is the same device", () => {
  using loops = new Loops();
  const image = loops.image("a");
  const { major, minor } = numberOf(loops.attach(image));
  run("mknod", `${loops.path}/node`, "b", String(major), String(minor));
  assert.deepEqual(resolve(`${loops.path}/node`).identities, resolve(image).identities);
});

Deno.test("loop device: a partition is locked as the whole file", () => {
  using loops = new Loops();
  const image = loops.image("a");
  const device = loops.attach(image);
  run("addpart", device, "1", "2048", "2048");
  run("addpart", device, "2", "4096", "2048");
  try {
    assert.deepEqual(resolve(device).identities, resolve(image).identities);
    const sysfs = `/sys/class/block/${device.slice("/dev/".length)}p2/dev`;
    const [major, minor] = Deno.readTextFileSync(sysfs).trim().split(":").map(Number);
    run("mknod", `${loops.path}/part2`, "b", String(major), String(minor));
    assert.deepEqual(resolve(`${loops.path}/part2`).identities, resolve(image).identities);
  } finally {
    run("delpart", device, "1");
    run("delpart", device, "2");
  }
});

Deno.test("loop device: a file that was renamed is still found, one that was removed is refused", () => {
  using loops = new Loops();
  const image = loops.image("a");
  const device = loops.attach(image);
  Deno.renameSync(image, `${loops.path}/b`);
  assert.deepEqual(resolve(device).identities, resolve(`${loops.path}/b`).identities);
  const inner = loops.attach(device);
  Deno.removeSync(`${loops.path}/b`);
  for (const name of [device, inner]) {
    assert.throws(() => resolve(name), (error) => {
      assert.ok(error instanceof LockvisorError);
      assert.equal(error.code, "data");
      assert.match(error.message, new RegExp(`^disk ${name}: .*${loops.path}/b, was removed; .*losetup -d`));
      return true;
    });
  }
});

Deno.test("loop device: beyond a reasonable depth it is refused", () => {
  using loops = new Loops();
  let device = loops.attach(loops.image("a"));
  for (let depth = 1; depth < 8; depth++) device = loops.attach(device);
  assert.equal(resolve(device).identities.length, 2);
  const tooDeep = loops.attach(device);
  assert.throws(
    () => resolve(tooDeep),
    (error) => error instanceof LockvisorError && /8 deep/.test(error.message),
  );
});

Deno.test("block device: what the kernel has is read, what it has not is refused", () => {
  using loops = new Loops();
  const device = loops.attach(loops.image("a"));
  const { major, minor } = numberOf(device);
  assert.equal(readBlockDevice({ major, minor }).backingFile, `${loops.path}/a`);
  run("mknod", `${loops.path}/gone`, "b", "4095", "1048575");
  assert.throws(
    () => resolve(`${loops.path}/gone`),
    (error) => error instanceof LockvisorError && error.code === "data" && /4095:1048575/.test(error.message),
  );
});

Deno.test("block devices of this machine: each has a name", () => {
  for (const { name } of Deno.readDirSync("/sys/block")) {
    if (name.startsWith("loop")) continue;
    const [major, minor] = Deno.readTextFileSync(`/sys/block/${name}/dev`).trim().split(":").map(Number);
    const { names } = readBlockDevice({ major: major!, minor: minor! });
    assert.ok(names.length > 0, name);
  }
});
