import assert from "node:assert/strict";
import { dirname, relative } from "node:path";
import { LockvisorError } from "../lib/errors.ts";
import { decodeDevice, readBlockDevice } from "../lib/identity/block_device.ts";
import { blockIdentity, isNetworkDevice } from "../lib/identity/block_name.ts";
import { type BlockFacts, type DiskFacts, diskFacts } from "../lib/identity/disk_facts.ts";
import { identitiesOf, isOnNetworkStorage } from "../lib/identity/resource.ts";

const HOST = "hv1";

/** A made-up sysfs in a directory of its own: devices with their attributes, as the kernel lays them out. */
class MadeUpSysfs implements Disposable {
  readonly root = Deno.makeTempDirSync({ prefix: "lockvisor-sysfs-" });
  #directories = new Map<string, string>();

  [Symbol.dispose](): void {
    Deno.removeSync(this.root, { recursive: true });
  }

  /** A disk or, as `disk/partition`, a partition; `where` is the path in `devices`. */
  add(number: string, where: string, attributes: Record<string, string> = {}): this {
    const directory = `${this.root}/devices/${where}`;
    const name = where.slice(where.lastIndexOf("/") + 1);
    this.#directories.set(name, directory);
    const isPartition = attributes.partition !== undefined;
    for (const kind of isPartition ? ["holders"] : ["holders", "slaves", "queue"]) {
      Deno.mkdirSync(`${directory}/${kind}`, { recursive: true });
    }
    for (const [file, value] of Object.entries({ dev: number, ...attributes })) {
      Deno.mkdirSync(dirname(`${directory}/${file}`), { recursive: true });
      Deno.writeTextFileSync(`${directory}/${file}`, `${value}\n`);
    }
    Deno.mkdirSync(`${this.root}/dev/block`, { recursive: true });
    Deno.symlinkSync(relative(`${this.root}/dev/block`, directory), `${this.root}/dev/block/${number}`);
    return this;
  }

  /** Links as device-mapper does: `upper` is made out of `lower`. */
  stack(upper: string, ...lowers: string[]): this {
    const above = this.#directories.get(upper)!;
    for (const lower of lowers) {
      const below = this.#directories.get(lower)!;
      Deno.symlinkSync(relative(`${above}/slaves`, below), `${above}/slaves/${lower}`);
      Deno.symlinkSync(relative(`${below}/holders`, above), `${below}/holders/${upper}`);
    }
    return this;
  }

  read(number: string) {
    const [major, minor] = number.split(":").map(Number);
    return readBlockDevice({ major: major!, minor: minor! }, this.root);
  }

  /** Identity texts of a device, those that are only locked shared with a `~` in front. */
  texts(number: string, backing?: DiskFacts): string[] {
    return textsOf(this.facts(number, backing));
  }

  facts(number: string, backing?: DiskFacts): BlockFacts {
    return { kind: "block", canonicalPath: "/dev/x", device: this.read(number), backing, backingBeneath: [] };
  }
}

function textsOf(facts: DiskFacts): string[] {
  return identitiesOf(facts, HOST).map(({ text, scope }) => (scope === "containing" ? "~" : "") + text)
    .sort();
}

/** Whether one guest that writes the one and another that uses the other exclude each other. */
function exclude(one: string[], other: string[], otherAccess: "writes" | "reads" = "writes"): boolean {
  return one.some((text) =>
    text.startsWith("~")
      ? otherAccess === "writes" && other.includes(text.slice(1))
      : other.includes(text) || other.includes(`~${text}`)
  );
}

Deno.test("device number: as makedev(3) lays it out, beyond 32 bits too", () => {
  const encode = (major: bigint, minor: bigint) =>
    (minor & 0xffn) | ((major & 0xfffn) << 8n) | ((minor & 0xffffff00n) << 12n) |
    ((major & 0xfffff000n) << 32n);
  for (
    const [major, minor] of [[8n, 0n], [8n, 17n], [259n, 3n], [253n, 256n], [253n, 1048575n], [
      4095n,
      0xffffffn,
    ], [8193n, 5n]]
  ) {
    const decoded = decodeDevice(Number(encode(major!, minor!)));
    assert.deepEqual(decoded, { major: Number(major), minor: Number(minor) });
  }
  assert.deepEqual(decodeDevice(2049), { major: 8, minor: 1 });
  assert.deepEqual(decodeDevice(Number(encode(259n, 0x1000000n))), { major: 259, minor: 0x1000000 });
});

Deno.test("block device: the most stable name that sysfs has", () => {
  using sysfs = new MadeUpSysfs();
  const cases: [string, string, Record<string, string>, string][] = [
    ["8:0", "pci/block/sda", { "device/wwid": "naa.5000", serial: "S" }, "wwid:naa.5000"],
    ["8:16", "pci/block/sdb", { "device/wwid": "", "device/serial": " Q1 " }, "serial:Q1"],
    ["8:32", "pci/block/sdc", {}, "block:hv1:8:32"],
    ["8:48", "pci/block/sdd", { "device/wwid": "  ", serial: "" }, "block:hv1:8:48"],
    [
      "8:64",
      "pci/block/sde",
      { "device/wwid": "t10.ATA     QEMU HARDDISK   1 " },
      "wwid:t10.ATA     QEMU HARDDISK   1",
    ],
    ["259:0", "nvme/nvme0/nvme0n1", { wwid: "eui.0025", "device/serial": "C1" }, "wwid:eui.0025"],
    ["259:1", "nvme/nvme1/nvme1n1", { "device/serial": "C1" }, "block:hv1:259:1"],
    ["254:0", "virtio0/block/vda", { serial: "overlayblk" }, "serial:overlayblk"],
    ["253:0", "virtual/block/dm-0", { "dm/uuid": "LVM-abc", "dm/name": "vg-lv" }, "dm:LVM-abc"],
    ["253:1", "virtual/block/dm-1", { "dm/uuid": "", "dm/name": "bare" }, "block:hv1:253:1"],
    ["251:0", "rbd/0/block/rbd0", {}, "block:hv1:251:0"],
    [
      "251:16",
      "rbd/1/block/rbd1",
      rbd({ pool: "p", name: "i", current_snap: "-", pool_ns: "" }),
      "uri:rbd:p/i",
    ],
    [
      "251:32",
      "rbd/2/block/rbd2",
      rbd({ pool: "p", name: "i", current_snap: "s", pool_ns: "n" }),
      "uri:rbd:p/n/i@s",
    ],
    ["251:48", "rbd/3/block/rbd3", rbd({ pool: "p", name: "(unknown)" }), "block:hv1:251:48"],
  ];
  for (const [number, where, attributes, expected] of cases) {
    sysfs.add(number, where, attributes);
    assert.deepEqual(sysfs.texts(number), [expected], where);
  }
});

function rbd(attributes: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`device/${name}`, value]));
}

Deno.test("partitions: beside each other, and against the whole disk", () => {
  using sysfs = new MadeUpSysfs();
  sysfs.add("8:0", "pci/block/sda", { "device/wwid": "naa.1" })
    .add("8:1", "pci/block/sda/sda1", { partition: "1" })
    .add("8:2", "pci/block/sda/sda2", { partition: "2" })
    .add("8:16", "pci/block/sdb", {})
    .add("8:17", "pci/block/sdb/sdb1", { partition: "1" });
  const [disk, first, second] = ["8:0", "8:1", "8:2"].map((number) => sysfs.texts(number));
  assert.deepEqual(first, ["wwid:naa.1:part1", "~wwid:naa.1"]);
  assert.deepEqual(second, ["wwid:naa.1:part2", "~wwid:naa.1"]);
  assert.deepEqual(disk, ["wwid:naa.1", "wwid:naa.1:part1", "wwid:naa.1:part2"]);
  assert.deepEqual(sysfs.texts("8:17"), ["block:hv1:8:16:part1", "~block:hv1:8:16"]);
  assert.equal(exclude(first!, second!), false);
  assert.equal(exclude(first!, disk!), true);
  assert.equal(exclude(first!, disk!, "reads"), true);
  assert.equal(exclude(disk!, first!, "reads"), true);
});

Deno.test("logical volumes: beside each other, and against the disk and the partition they are on", () => {
  using sysfs = new MadeUpSysfs();
  sysfs.add("8:0", "pci/block/sda", { "device/wwid": "naa.1" })
    .add("8:1", "pci/block/sda/sda1", { partition: "1" })
    .add("253:0", "virtual/block/dm-0", { "dm/uuid": "LVM-a" })
    .add("253:1", "virtual/block/dm-1", { "dm/uuid": "LVM-b" })
    .add("253:2", "virtual/block/dm-2", { "dm/uuid": "CRYPT-b" })
    .stack("dm-0", "sda1").stack("dm-1", "sda1").stack("dm-2", "dm-1");
  const texts = (number: string) => sysfs.texts(number);
  const [disk, partition] = [texts("8:0"), texts("8:1")];
  const [a, b, crypt] = [texts("253:0"), texts("253:1"), texts("253:2")];
  assert.deepEqual(a, ["dm:LVM-a", "~wwid:naa.1", "~wwid:naa.1:part1"]);
  assert.deepEqual(crypt, ["dm:CRYPT-b", "~dm:LVM-b", "~wwid:naa.1", "~wwid:naa.1:part1"]);
  assert.deepEqual(disk, ["dm:CRYPT-b", "dm:LVM-a", "dm:LVM-b", "wwid:naa.1", "wwid:naa.1:part1"]);
  assert.equal(exclude(a, b), false);
  assert.equal(exclude(a, crypt), false);
  assert.equal(exclude(crypt, b, "reads"), true);
  for (const below of [disk, partition]) {
    for (const above of [a, b, crypt]) {
      assert.equal(exclude(above, below, "reads"), true);
      assert.equal(exclude(below, above, "reads"), true);
    }
  }
});

Deno.test("multipath: the same disk as each of its paths, partitions included", () => {
  using sysfs = new MadeUpSysfs();
  const path = (session: number, name: string) => `platform/host1/session${session}/target/block/${name}`;
  sysfs.add("8:0", path(1, "sda"), { "device/wwid": "naa.1" })
    .add("8:1", `${path(1, "sda")}/sda1`, { partition: "1" })
    .add("8:16", path(2, "sdb"), { "device/wwid": "naa.1" })
    .add("8:19", `${path(2, "sdb")}/sdb3`, { partition: "3" })
    .add("253:0", "virtual/block/dm-0", { "dm/uuid": "mpath-3600" })
    .add("253:1", "virtual/block/dm-1", { "dm/uuid": "part1-mpath-3600" })
    .add("253:2", "virtual/block/dm-2", { "dm/uuid": "part2-mpath-3600" })
    .stack("dm-0", "sda", "sdb").stack("dm-1", "dm-0").stack("dm-2", "dm-0");
  const whole = [
    "dm:mpath-3600",
    "dm:mpath-3600:part1",
    "dm:mpath-3600:part2",
    "dm:mpath-3600:part3",
    "wwid:naa.1",
    "wwid:naa.1:part1",
    "wwid:naa.1:part2",
    "wwid:naa.1:part3",
  ];
  for (const number of ["8:0", "8:16", "253:0"]) assert.deepEqual(sysfs.texts(number), whole, number);
  const first = ["dm:mpath-3600:part1", "wwid:naa.1:part1", "~dm:mpath-3600", "~wwid:naa.1"];
  for (const number of ["8:1", "253:1"]) assert.deepEqual(sysfs.texts(number), first, number);
  assert.equal(exclude(first, sysfs.texts("253:2")), false);
  for (const number of ["8:0", "8:1", "253:0", "253:1"]) {
    assert.equal(isOnNetworkStorage(sysfs.facts(number)), true, number);
  }
});

Deno.test("kpartx on a disk that is no multipath: a partition of that disk", () => {
  using sysfs = new MadeUpSysfs();
  sysfs.add("253:0", "virtual/block/dm-0", { "dm/uuid": "LVM-a" })
    .add("253:1", "virtual/block/dm-1", { "dm/uuid": "part12-LVM-a" }).stack("dm-1", "dm-0");
  assert.deepEqual(sysfs.texts("253:1"), ["dm:LVM-a:part12", "~dm:LVM-a"]);
  assert.deepEqual(sysfs.texts("253:0"), ["dm:LVM-a", "dm:LVM-a:part12"]);
});

Deno.test("loop device in sysfs: its backing file; beneath a volume: shared", () => {
  using sysfs = new MadeUpSysfs();
  sysfs.add("7:0", "virtual/block/loop0", { "loop/backing_file": "/images/a b \n x " })
    .add("259:0", "virtual/block/loop0/loop0p1", { partition: "1" })
    .add("7:1", "virtual/block/loop1", {})
    .add("253:0", "virtual/block/dm-0", { "dm/uuid": "LVM-a" }).stack("dm-0", "loop0");
  assert.equal(sysfs.read("7:0").backingFile, "/images/a b \n x ");
  assert.equal(sysfs.read("259:0").backingFile, "/images/a b \n x ");
  assert.equal(sysfs.read("7:1").backingFile, undefined);
  assert.deepEqual(sysfs.texts("7:1"), ["block:hv1:7:1"]);
  assert.deepEqual(sysfs.read("253:0").filesBeneath, ["/images/a b \n x "]);
  const backing: DiskFacts = { kind: "network", disk: { uri: "x", identity: "x", hostLocal: false } };
  assert.deepEqual(sysfs.texts("7:0", backing), ["dm:LVM-a", "uri:x"]);
  const volume = { ...sysfs.facts("253:0"), backingBeneath: [backing] };
  assert.deepEqual(textsOf(volume), ["dm:LVM-a", "~uri:x"]);
  assert.equal(isOnNetworkStorage(volume), true);
});

Deno.test("volume on a loop device: the backing file is locked shared", () => {
  if (Deno.uid() !== 0) throw new Error("this test makes a device node and must be run as root");
  using sysfs = new MadeUpSysfs();
  const image = `${sysfs.root}/image`;
  Deno.writeTextFileSync(image, "");
  sysfs.add("7:0", "virtual/block/loop0", { "loop/backing_file": image })
    .add("253:0", "virtual/block/dm-0", { "dm/uuid": "LVM-a" }).stack("dm-0", "loop0");
  const node = `${sysfs.root}/node`;
  const { success } = new Deno.Command("mknod", { args: [node, "b", "253", "0"] }).outputSync();
  assert.ok(success, "mknod failed");
  const { dev, ino } = Deno.statSync(image);
  assert.deepEqual(textsOf(diskFacts(node, { storage: [], sysfs: sysfs.root })), [
    "dm:LVM-a",
    `~inode:hv1:${dev}:${ino}`,
    `~path:hv1:${Deno.realPathSync(image)}`,
  ]);
});

Deno.test("block device: one that the kernel does not know is an error", () => {
  using sysfs = new MadeUpSysfs();
  sysfs.add("8:0", "pci/block/sda");
  assert.throws(() => sysfs.read("8:99"), (error) => {
    assert.ok(error instanceof LockvisorError);
    assert.equal(error.code, "data");
    return /no block device 8:99/.test(error.message);
  });
});

Deno.test("block device: a name that cannot be read is an error, not another name", () => {
  using sysfs = new MadeUpSysfs();
  sysfs.add("8:0", "pci/block/sda", { serial: "S" });
  Deno.mkdirSync(`${sysfs.root}/devices/pci/block/sda/wwid`);
  assert.throws(
    () => sysfs.read("8:0"),
    (error) => error instanceof LockvisorError && /wwid/.test(error.message),
  );
});

Deno.test("block device: which ones lead over a network", () => {
  const cases: [string, boolean][] = [
    ["/sys/devices/platform/host2/session1/target2:0:0/2:0:0:0/block/sdb", true],
    ["/sys/devices/pci0000:00/0000:00:02.0/host3/rport-3:0-0/target3:0:0/3:0:0:1/block/sdc", true],
    ["/sys/devices/virtual/nvme-fabrics/ctl/nvme2/nvme2n1", true],
    ["/sys/devices/virtual/block/nbd0", true],
    ["/sys/devices/virtual/block/nbd0/nbd0p1", true],
    ["/sys/devices/rbd/0/block/rbd0", true],
    ["/sys/devices/virtual/block/drbd10", true],
    ["/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", false],
    ["/sys/devices/virtual/block/dm-0", false],
    ["/sys/devices/virtual/block/loop0", false],
    ["/sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda", false],
  ];
  for (const [directory, expected] of cases) assert.equal(isNetworkDevice(directory), expected, directory);
});

Deno.test("block identity: only the device number needs the host's id", () => {
  assert.equal(blockIdentity({ base: "wwid:x", suffix: ":part1" }, "h"), "wwid:x:part1");
  assert.equal(blockIdentity({ base: { major: 8, minor: 1 }, suffix: ":part2" }, "h"), "block:h:8:1:part2");
});
