import assert from "node:assert/strict";
import fc from "fast-check";
import { LockvisorError } from "../lib/errors.ts";
import {
  hidesLocks,
  isNetworkFilesystem,
  isWithin,
  type Mount,
  mountOf,
  nameOnEveryHost,
  parseMountinfo,
  pathInside,
  readMounts,
  unescapeOctal,
} from "../lib/identity/mounts.ts";

function mount(id: number, parentId: number, mountPoint: string, root = "/"): Mount {
  return {
    id,
    parentId,
    major: 8,
    minor: id,
    root,
    mountPoint,
    fstype: "ext4",
    source: "/dev/x",
    options: [],
  };
}

Deno.test("mountinfo: all fields, with and without tags, escapes and an empty source", () => {
  const text = [
    "22 27 0:21 / / rw,relatime - proc proc rw",
    "36 22 98:1048575 /sub\\040dir /mnt/a\\134b\\011c rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue",
    "37 22 0:50 / /n rw - nfs4 srv:/ex\\043port\\040 rw,vers=4.2",
    "38 22 0:51 / /t rw -  - tmpfs  rw",
  ];
  const [proc, bind, nfs] = parseMountinfo(text.slice(0, 3).join("\n") + "\n");
  assert.deepEqual(proc, {
    id: 22,
    parentId: 27,
    major: 0,
    minor: 21,
    root: "/",
    mountPoint: "/",
    fstype: "proc",
    source: "proc",
    options: ["rw", "relatime", "rw"],
  });
  assert.deepEqual(bind && [bind.root, bind.mountPoint, bind.major, bind.minor, bind.fstype], [
    "/sub dir",
    "/mnt/a\\b\tc",
    98,
    1048575,
    "ext3",
  ]);
  assert.deepEqual(bind?.options, ["rw", "noatime", "rw", "errors=continue"]);
  assert.deepEqual(nfs && [nfs.source, nfs.fstype], ["srv:/ex#port ", "nfs4"]);
  const [tmpfs] = parseMountinfo("38 22 0:51 / /t rw - tmpfs  rw\n");
  assert.deepEqual(tmpfs && [tmpfs.fstype, tmpfs.source, tmpfs.options], ["tmpfs", "", ["rw", "rw"]]);
  assert.deepEqual(parseMountinfo(""), []);
});

Deno.test("mountinfo: a line that is not understood is an error, never left out", () => {
  const good = "22 27 0:21 / / rw - proc proc rw";
  for (
    const bad of [
      "",
      "x",
      "22 27 0:21 / / rw proc proc rw",
      "22 27 021 / / rw - proc proc rw",
      "22 27 0:21 / / rw -",
    ]
  ) {
    assert.throws(
      () => parseMountinfo(`${good}\n${bad}\n${good}\n`, "/f"),
      (error) =>
        error instanceof LockvisorError && error.code === "io" && /line 2 of \/f/.test(error.message),
      bad,
    );
  }
});

Deno.test("mountinfo: the kernel's escapes are undone", () => {
  assert.equal(unescapeOctal("a\\040b\\012\\011\\134\\043"), "a b\n\t\\#");
  assert.equal(unescapeOctal("\\134040"), "\\040");
  assert.equal(unescapeOctal("\\04 \\8"), "\\04 \\8");
  const escape = (text: string) =>
    text.replace(/[ \t\n\\#]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, "0")}`);
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(" ", "\t", "\n", "\\", "#", "0", "4", "ü") }), (text) => {
      assert.equal(unescapeOctal(escape(text)), text);
    }),
  );
});

Deno.test("mount of a path: nested, stacked, hidden", () => {
  const root = mount(1, 0, "/");
  const cases: [string, Mount[], string, number | undefined][] = [
    ["the root", [root], "/a", 1],
    ["the root itself", [root], "/", 1],
    ["a mount point itself", [root, mount(2, 1, "/a")], "/a", 2],
    ["a name that only begins alike", [root, mount(2, 1, "/a")], "/ab", 1],
    ["nested", [root, mount(2, 1, "/a"), mount(3, 2, "/a/b")], "/a/b/c", 3],
    ["beside", [root, mount(2, 1, "/a"), mount(3, 2, "/a/b")], "/a/c", 2],
    ["stacked", [root, mount(2, 1, "/a"), mount(3, 2, "/a")], "/a/x", 3],
    ["stacked, listed the other way round", [root, mount(3, 2, "/a"), mount(2, 1, "/a")], "/a/x", 3],
    [
      "hidden beneath a later mount of the parent",
      [root, mount(2, 1, "/a/b"), mount(3, 1, "/a")],
      "/a/b/c",
      3,
    ],
    [
      "hidden with what is on it",
      [root, mount(2, 1, "/a/b"), mount(4, 2, "/a/b/c"), mount(3, 1, "/a")],
      "/a/b/c",
      3,
    ],
    ["a new root on the first", [root, mount(2, 1, "/"), mount(3, 1, "/a"), mount(4, 2, "/b")], "/a/x", 2],
    ["a file that is mounted on", [root, mount(2, 1, "/a/f")], "/a/f", 2],
    ["a root that is its own parent", [mount(1, 1, "/"), mount(2, 1, "/a")], "/a/b", 2],
    ["a chroot that is no mount point", [mount(2, 1, "/proc")], "/a", undefined],
    ["a mount in such a chroot", [mount(2, 1, "/proc")], "/proc/1", 2],
    ["no mounts", [], "/a", undefined],
  ];
  for (const [what, mounts, path, expected] of cases) assert.equal(mountOf(path, mounts)?.id, expected, what);
});

Deno.test("mount of a path: mounts that go in a circle are an error", () => {
  const circle = [mount(1, 0, "/"), mount(2, 1, "/a"), mount(3, 2, "/a"), { ...mount(2, 3, "/a") }];
  assert.throws(() => mountOf("/a/b", circle), /circle/);
});

/**
 * How the kernel does it, step by step: a table of (mount, directory) → mount; mounting follows the path to the
 * topmost mount, and a walk looks into the table after each component until nothing more is mounted there.
 */
class NaiveNamespace {
  readonly mounts: Mount[] = [mount(1, 0, "/")];
  #on = new Map<string, number>();

  walk(path: string): number {
    let current = this.#down(1, "/");
    let directory = "";
    for (const component of path.split("/").filter((part) => part !== "")) {
      directory += `/${component}`;
      current = this.#down(current, directory);
    }
    return current;
  }

  mount(path: string): void {
    const parent = this.walk(path);
    const id = this.mounts.length + 1;
    this.#on.set(`${parent} ${path}`, id);
    this.mounts.push(mount(id, parent, path));
  }

  #down(id: number, directory: string): number {
    const above = this.#on.get(`${id} ${directory}`);
    return above === undefined ? id : this.#down(above, directory);
  }
}

Deno.test("mount of a path: the same as the kernel's own walk, for any sequence of mounts", () => {
  const path = fc.array(fc.constantFrom("a", "b", "ab"), { maxLength: 4 }).map((parts) =>
    `/${parts.join("/")}`
  );
  fc.assert(
    fc.property(
      fc.array(path, { maxLength: 12 }),
      fc.array(path, { minLength: 1, maxLength: 8 }),
      (made, asked) => {
        const namespace = new NaiveNamespace();
        for (const each of made) namespace.mount(each);
        for (const each of asked) {
          assert.equal(
            mountOf(each, namespace.mounts)?.id,
            namespace.walk(each),
            each,
          );
        }
        const shuffled = [...namespace.mounts].reverse();
        for (const each of asked) assert.equal(mountOf(each, shuffled)?.id, namespace.walk(each), each);
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("path inside a mount: root and remainder", () => {
  const cases: [string, string, string, string][] = [
    ["/", "/", "/a/b", "/a/b"],
    ["/", "/", "/", "/"],
    ["/", "/m", "/m/a", "/a"],
    ["/", "/m", "/m", "/"],
    ["/sub", "/m", "/m/a", "/sub/a"],
    ["/sub", "/m", "/m", "/sub"],
    ["/sub/file", "/m/f", "/m/f", "/sub/file"],
    ["/sub", "/", "/a", "/sub/a"],
    ["/sub", "/", "/", "/sub"],
  ];
  for (const [root, point, path, expected] of cases) {
    assert.equal(pathInside(mount(1, 0, point, root), path), expected, `${root} ${point} ${path}`);
  }
});

Deno.test("filesystems: what other hosts may see, and what hides its locks", () => {
  const network =
    "nfs nfs4 cifs smb3 ceph fuse.ceph fuse.ceph-fuse glusterfs fuse.glusterfs gfs2 ocfs2 lustre beegfs " +
    "gpfs 9p virtiofs afs orangefs fuse.sshfs fuse.juicefs fuse.JuiceFS fuse.moosefs fuse.mfs fuse.lizardfs";
  for (const fstype of network.split(" ")) assert.equal(isNetworkFilesystem(fstype), true, fstype);
  for (const fstype of ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.ntfs-3g", ""]) {
    assert.equal(isNetworkFilesystem(fstype), false, fstype);
  }
  for (const fstype of ["fuse.glusterfs", "fuse", "lustre", "gpfs", "beegfs", "virtiofs"]) {
    assert.equal(hidesLocks(fstype), true, fstype);
  }
  for (const fstype of ["ext4", "nfs4", "gfs2", "tmpfs", "fuseblk"]) {
    assert.equal(hidesLocks(fstype), false, fstype);
  }
});

Deno.test("mounts of this machine: every mount point is on its own mount or one that hides it", () => {
  const mounts = readMounts();
  assert.equal(mountOf("/proc/self", mounts)?.fstype, "proc");
  for (const { mountPoint } of mounts) {
    const found = mountOf(mountPoint, mounts);
    assert.ok(found !== undefined && isWithin(mountPoint, found.mountPoint), mountPoint);
  }
  assert.throws(
    () => readMounts("/nonexistent/mountinfo"),
    (error) => error instanceof LockvisorError && error.code === "io",
  );
});

Deno.test("a file on GlusterFS has the volume's name, whichever server and directory it is mounted from", () => {
  const cases: [source: string, name: string, path: string][] = [
    ["hv1:/gv0", "gv0", "/a/b"],
    ["hv2:gv0", "gv0", "/a/b"],
    ["localhost:/gv0", "gv0", "/a/b"],
    ["hv1,hv2:/gv0", "gv0", "/a/b"],
    ["fe80::1:gv0", "gv0", "/a/b"],
    ["[fe80::1]:/gv-0_x", "gv-0_x", "/a/b"],
    ["/var/run/glusterd.socket:gv0", "gv0", "/a/b"],
    ["hv1:/gv0/images", "gv0", "/images/a/b"],
    ["hv1:gv0/im:ages/", "gv0", "/im:ages/a/b"],
    ["glusterfs:(null)", "glusterfs:(null)", "/a/b"],
    ["whatever", "whatever", "/a/b"],
  ];
  for (const [source, name, path] of cases) {
    assert.deepEqual(nameOnEveryHost({ fstype: "fuse.glusterfs", source }, "/a/b"), { source: name, path });
  }
  const nfs = { fstype: "nfs4", source: "srv:/gv0/images" };
  assert.deepEqual(nameOnEveryHost(nfs, "/a/b"), { source: nfs.source, path: "/a/b" });
});
