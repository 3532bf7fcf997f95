import assert from "node:assert/strict";
import type { DeclaredStorage } from "../lib/config/storage.ts";
import { type ErrorCode, LockvisorError } from "../lib/errors.ts";
import { keyOf } from "../lib/identity/key.ts";
import { type Mount, readMounts } from "../lib/identity/mounts.ts";
import { type ResolvedResource, resolveResource, resolveResources } from "../lib/identity/resource.ts";

const HOST = "hv1";

/** A directory of the test's own, without symbolic links in its path. */
class Folder implements Disposable {
  readonly path = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-identity-" }));

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }

  file(name: string): string {
    const path = `${this.path}/${name}`;
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    Deno.writeTextFileSync(path, name);
    return path;
  }
}

function resolve(name: string, { storage = [], mounts, cwd }: {
  storage?: DeclaredStorage[];
  mounts?: Mount[];
  cwd?: string;
} = {}): ResolvedResource {
  return resolveResource({ type: "disk", name, access: "exclusive" }, {
    hostId: HOST,
    storage,
    ...(mounts === undefined ? {} : { mounts }),
    ...(cwd === undefined ? {} : { cwd }),
  });
}

function textsOf(resource: ResolvedResource): string[] {
  return resource.identities.map(({ text }) => text).sort();
}

function refused(name: string): { code: ErrorCode; message: string } {
  try {
    resolve(name);
  } catch (error) {
    assert.ok(error instanceof LockvisorError, `${name}: ${error}`);
    return error;
  }
  throw new assert.AssertionError({ message: `accepted: ${name}` });
}

async function run(command: string, args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args, env: { NO_COLOR: "1" } })
    .output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${text(stderr)}`);
  return text(stdout);
}

/**
 * Resolves disks in a process of its own, started by a shell script that first does what it wants, as root, in a
 * mount namespace of its own.
 */
async function resolveIn(script: string, names: string[], storage: DeclaredStorage[] = []) {
  if (Deno.uid() !== 0) throw new Error("this test mounts filesystems and must be run as root");
  const module = new URL("../lib/identity/resource.ts", import.meta.url).href;
  const program = `
    import { resolveResource } from ${JSON.stringify(module)};
    const [names, storage] = ${JSON.stringify([names, storage])};
    console.log(JSON.stringify(names.map((name) => {
      try {
        const spec = { type: "disk", name, access: "exclusive" };
        return resolveResource(spec, { hostId: "${HOST}", storage }).identities.map(({ text }) => text).sort();
      } catch (error) {
        return [error.code ?? "?", error.message];
      }
    })));`;
  const output = await run("unshare", [
    "-m",
    "sh",
    "-euc",
    `${script}\nexec "$@"`,
    "sh",
    Deno.execPath(),
    "eval",
    program,
  ]);
  return JSON.parse(output) as string[][];
}

Deno.test("file: path and inode of this host, in key order", () => {
  using folder = new Folder();
  const path = folder.file("a.qcow2");
  const { dev, ino } = Deno.statSync(path);
  const resource = resolve(path);
  assert.equal(resource.name, path);
  assert.deepEqual(textsOf(resource), [`inode:${HOST}:${dev}:${ino}`, `path:${HOST}:${path}`]);
  assert.deepEqual(resource.identities.map(({ key }) => key), textsOf(resource).map(keyOf).sort());
  assert.ok(resource.identities.every(({ scope }) => scope === "whole"));
  assert.equal(resource.onNetworkStorage, false);
});

Deno.test("file: every way to name it gives the same identities", () => {
  using folder = new Folder();
  const path = folder.file("images/a b.qcow2");
  folder.file("x");
  Deno.symlinkSync(path, `${folder.path}/link`);
  Deno.symlinkSync("link", `${folder.path}/link2`);
  Deno.mkdirSync(`${folder.path}/deep/er`, { recursive: true });
  Deno.symlinkSync("deep/er", `${folder.path}/directory`);
  Deno.symlinkSync("../../images", `${folder.path}/deep/er/images`);
  const names = [
    "images/a b.qcow2",
    "./images//a b.qcow2",
    "images/../images/a b.qcow2",
    "link",
    "link2",
    "file:link",
    `file:${path}`,
    `host_device:${path}`,
    // Lexically this would be ./images; the kernel goes to deep/er first and then up to deep.
    "directory/images/a b.qcow2",
    "directory/../er/images/a b.qcow2",
  ];
  for (const name of names) {
    assert.deepEqual(resolve(name, { cwd: folder.path }).identities, resolve(path).identities, name);
  }
  assert.equal(resolve("./link", { cwd: folder.path }).name, `${folder.path}/link`);
  assert.equal(resolve("file:deep/../link", { cwd: folder.path }).name, `${folder.path}/deep/../link`);
});

Deno.test("file: a hard link and a replaced file each keep one identity", () => {
  using folder = new Folder();
  const path = folder.file("a");
  Deno.linkSync(path, `${folder.path}/b`);
  const first = new Set(textsOf(resolve(path)));
  const common = (other: string) =>
    textsOf(resolve(other)).filter((text) => first.has(text)).map((text) => text.split(":")[0]);
  assert.deepEqual(common(`${folder.path}/b`), ["inode"]);
  folder.file("new");
  Deno.renameSync(`${folder.path}/new`, path);
  assert.deepEqual(common(path), ["path"]);
});

Deno.test("file: names with line breaks, colons and other alphabets", () => {
  using folder = new Folder();
  for (const name of ["a\nb", "a:b", "ü😀", " ", "a,b", "-", "(deleted)"]) {
    const path = folder.file(name);
    assert.ok(textsOf(resolve(path)).includes(`path:${HOST}:${path}`), name);
  }
});

Deno.test("what is no disk is refused with a clear line", async () => {
  using folder = new Folder();
  const at = (name: string) => `${folder.path}/${name}`;
  folder.file("file");
  Deno.symlinkSync("nowhere", at("dangling"));
  Deno.symlinkSync("self", at("self"));
  Deno.mkdirSync(at("directory"));
  await run("mkfifo", [at("fifo")]);
  await run("sh", [
    "-c",
    `cd "$1"; bad=$(printf 'x\\377'); : >"$bad"; ln -s "$bad" invalid`,
    "sh",
    folder.path,
  ]);
  using _socket = Deno.listen({ transport: "unix", path: at("socket") });
  const cases: [string, ErrorCode, RegExp][] = [
    ["", "usage", /no path/],
    ["file:", "usage", /disk "file:" has no path/],
    ["json:{}", "usage", /json: form is not understood; state its path/],
    ["s3://bucket/disk", "data", /scheme "s3" is not understood; the schemes are rbd, /],
    [at("none"), "data", /^disk \/.*\/none does not exist$/],
    [at("none\nx"), "data", /none\\nx does not exist$/],
    [at("dangling"), "data", /dangling is a symbolic link to nowhere, which does not exist$/],
    [at("self"), "data", /self: too many levels of symbolic links/],
    [at("invalid"), "data", /invalid: .*not valid UTF-8/],
    [at("a".repeat(300)), "data", /a…a+: the name is too long/],
    [at("file/"), "data", /not a directory/],
    [at("file/x"), "data", /not a directory/],
    [at("directory"), "data", /directory is a directory; wanted a regular file or a block device$/],
    [at("fifo"), "data", /is a named pipe/],
    [at("socket"), "data", /is a socket/],
    ["/dev/null", "data", /is a character device/],
    ["/", "data", /is a directory/],
    [at("a\0b"), "data", /NUL/],
  ];
  for (const [name, code, message] of cases) {
    const error = refused(name);
    assert.equal(error.code, code, `${name}: ${error.message}`);
    assert.match(error.message, message);
    assert.ok(error.message.length < 600 && !error.message.includes("os error"), error.message);
  }
});

Deno.test("a file that may not be read is a permission error", async () => {
  using folder = new Folder();
  const path = folder.file("a");
  folder.file("closed/b");
  Deno.chmodSync(path, 0o000);
  Deno.chmodSync(`${folder.path}/closed`, 0o000);
  try {
    // Root without its capabilities is a user like any other, but may still run this very Deno.
    const names = [path, `${folder.path}/closed/b`];
    const drop = 'set -- setpriv --bounding-set=-all --inh-caps=-all "$@"';
    for (const [index, [code, message]] of (await resolveIn(drop, names)).entries()) {
      assert.equal(code, "permission", message);
      assert.equal(message, `cannot use disk ${names[index]}: permission denied`);
    }
  } finally {
    Deno.chmodSync(`${folder.path}/closed`, 0o700);
  }
});

Deno.test("declared storage: by path, beside what the filesystem gives", () => {
  using folder = new Folder();
  const inside = folder.file("images/sub/a");
  const outside = folder.file("b");
  Deno.linkSync(inside, `${folder.path}/hard`);
  Deno.symlinkSync("images", `${folder.path}/declared`);
  const storage = [
    { path: `${folder.path}/declared`, id: "san1" },
    { path: `${folder.path}/none`, id: "absent" },
    { path: folder.file("plain"), id: "file" },
    { path: `${folder.path}/image`, id: "prefix" },
  ];
  const { dev, ino } = Deno.statSync(inside);
  const resource = resolve(inside, { storage });
  assert.deepEqual(textsOf(resource), [
    `inode:${HOST}:${dev}:${ino}`,
    `storage-inode:san1:${ino}`,
    "storage:san1:sub/a",
  ]);
  assert.equal(resource.onNetworkStorage, true);
  assert.ok(textsOf(resolve(`${folder.path}/hard`, { storage })).includes(`inode:${HOST}:${dev}:${ino}`));
  const plain = resolve(outside, { storage });
  assert.equal(plain.onNetworkStorage, false);
  assert.ok(textsOf(plain).includes(`path:${HOST}:${outside}`));
  const nested = resolve(inside, {
    storage: [{ path: folder.path, id: "outer" }, { path: `${folder.path}/images`, id: "inner" }],
  });
  assert.deepEqual(textsOf(nested).filter((text) => text.startsWith("storage:")), [
    "storage:inner:sub/a",
    "storage:outer:images/sub/a",
  ]);
  assert.ok(
    textsOf(resolve(inside, { storage: [{ path: "/", id: "all" }] })).includes(
      `storage:all:${inside.slice(1)}`,
    ),
  );
});

Deno.test("network mount: named by what is mounted, the same on every host", () => {
  using folder = new Folder();
  const path = folder.file("m/sub/a");
  const [root] = readMounts().filter(({ mountPoint }) => mountPoint === "/");
  const nfs: Mount = {
    id: 100000,
    parentId: root!.id,
    major: 0,
    minor: 99,
    root: "/vm",
    mountPoint: `${folder.path}/m`,
    fstype: "nfs4",
    source: "srv:/export",
    options: [],
  };
  const { ino } = Deno.statSync(path);
  const resource = resolve(path, { mounts: [root!, nfs] });
  const ofMount = [`mount-inode:nfs4:srv:/export:${ino}`, "mount:nfs4:srv:/export:/vm/sub/a"];
  assert.deepEqual(textsOf(resource), ofMount);
  assert.equal(resource.onNetworkStorage, true);
  const declared = resolve(path, { mounts: [root!, nfs], storage: [{ path: `${folder.path}/m`, id: "s" }] });
  assert.deepEqual(textsOf(declared), [...ofMount, `storage-inode:s:${ino}`, "storage:s:sub/a"]);
});

Deno.test("a path that no mount covers is an error", () => {
  using folder = new Folder();
  const path = folder.file("a");
  assert.throws(() => resolve(path, { mounts: [] }), (error) => {
    return error instanceof LockvisorError && error.code === "data" && /chroot/.test(error.message);
  });
});

Deno.test("several disks at once: as one by one", () => {
  using folder = new Folder();
  const specs = ["a", "b"].map((name) => ({
    type: "disk" as const,
    name: folder.file(name),
    access: "shared" as const,
  }));
  const context = { hostId: HOST, storage: [] };
  assert.deepEqual(resolveResources(specs, context), specs.map((spec) => resolveResource(spec, context)));
  const lease = { type: "lease" as const, name: "a:b", access: "exclusive" as const };
  assert.deepEqual(resolveResources([lease], context), [resolveResource(lease, context)]);
});

Deno.test("bind mounts and tmpfs, in a mount namespace of its own", async () => {
  using folder = new Folder();
  const top = folder.path;
  const path = folder.file("images/a");
  for (const name of ["bind", "tmp dir", "over", "other"]) Deno.mkdirSync(`${top}/${name}`);
  folder.file("over/images/a");
  folder.file("file");
  const script = `
    mount --bind ${top}/images ${top}/bind
    mount --bind ${path} ${top}/file
    mount -t tmpfs none "${top}/tmp dir"
    echo x >"${top}/tmp dir/t"
    mount --bind "${top}/tmp dir" ${top}/other
    mount -t tmpfs first ${top}/over
    mount -t tmpfs second ${top}/over
    mkdir ${top}/over/images
    echo y >${top}/over/images/a`;
  const names = ["bind/a", "file", "tmp dir/t", "other/t", "over/images/a"].map((name) => `${top}/${name}`);
  const storage = [{ path: `${top}/images`, id: "s1" }, { path: `${top}/other`, id: "s2" }];
  const [bind, file, tmp, other, over] = await resolveIn(script, names, storage) as [
    string[],
    string[],
    string[],
    string[],
    string[],
  ];
  const { dev, ino } = Deno.statSync(path);
  const expected = [`inode:${HOST}:${dev}:${ino}`, `storage-inode:s1:${ino}`, "storage:s1:a"];
  assert.deepEqual(bind, expected);
  assert.deepEqual(file, expected);
  assert.deepEqual(tmp, other);
  assert.ok(tmp.includes("storage:s2:t"), String(tmp));
  assert.equal(over.filter((text) => text.startsWith("storage")).length, 0, String(over));
  assert.ok(over.includes(`path:${HOST}:${top}/over/images/a`));
  assert.notEqual(over.find((text) => text.startsWith("inode:"))!.split(":")[2], String(dev));
});

Deno.test("a nested mount in declared storage: by path, since its inode numbers are of another filesystem", async () => {
  using folder = new Folder();
  folder.file("images/a");
  Deno.mkdirSync(`${folder.path}/images/nested`);
  const script = `mount -t tmpfs none ${folder.path}/images/nested; echo x >${folder.path}/images/nested/b`;
  const storage = [{ path: `${folder.path}/images`, id: "s" }];
  const [texts] = await resolveIn(script, [`${folder.path}/images/nested/b`], storage);
  assert.deepEqual(texts!.map((text) => text.replace(/\d+:\d+$/, "N")), [
    `inode:${HOST}:N`,
    "storage:s:nested/b",
  ]);
});
