import assert from "node:assert/strict";
import { LockvisorError } from "../lib/errors.ts";
import { WrongShape } from "../lib/files/json_shape.ts";
import { type PluggedDisk, readPluggedDisk } from "../lib/manager/plugged_disk.ts";
import { parseQemuOption } from "../lib/migration/destination_command.ts";
import { typedLiteral } from "../lib/migration/device_options.ts";
import { presentCommand, refuseMissingDevices } from "../lib/migration/present_command.ts";
import type { PresentDevice, PresentDevices } from "../lib/migration/present_devices.ts";

/** A device as `ID TYPE ADDR [NODE]`; `-` for one without an id, and a place on SCSI as `CHANNEL:ID:LUN`. */
function device(text: string): PresentDevice {
  const [id, type, address, node] = text.split(" ");
  const [channel, target, lun] = address!.split(":").map(Number);
  return {
    id: id === "-" ? undefined : id,
    type: type!,
    bus: lun === undefined ? "pci.0" : "scsi0.0",
    place: address === "?"
      ? {}
      : lun === undefined
      ? { addr: address! }
      : { channel: channel!, "scsi-id": target!, lun },
    node,
    optionTypes: new Map([["share-rw", "bool"], ["serial", "str"], ["bootindex", "int32"]]),
  };
}

function present(devices: string[], nodes: string[] = [], drives: string[] = []): PresentDevices {
  return { devices: devices.map(device), nodes: new Set(nodes), drives: new Set(drives) };
}

function plugged(id: string, options: Record<string, unknown> = { driver: "virtio-blk-pci" }): PluggedDisk {
  const node = `${id}-img`;
  return {
    id,
    node,
    disks: [],
    blockdev: { driver: "raw", "node-name": node },
    device: { ...options, id, drive: node },
  };
}

const options = (texts: string[] = []) => texts.map((text) => parseQemuOption("--add", text));

/** The guest's command, what is plugged in, what QEMU has, and the command as it is now. */
const COMMANDS: [string, string, PluggedDisk[], PresentDevices, string][] = [
  [
    "nothing has changed",
    "-device scsi,id=s -device v",
    [],
    present(["s scsi 2", "- v 3"]),
    "-device scsi,id=s -device v",
  ],
  [
    "a plugged disk comes last, at its place, with its types",
    "-device v",
    [plugged("p", { driver: "virtio-blk-pci", "share-rw": "on", serial: 7, bootindex: "0x2", addr: "3" })],
    present(["- v 2", "p virtio-blk-pci 9 p-img"]),
    `-device v -blockdev {"driver":"raw","node-name":"p-img"} -device ` +
    `{"driver":"virtio-blk-pci","share-rw":true,"serial":"7","bootindex":2,"id":"p","drive":"p-img","bus":"pci.0","addr":"9"}`,
  ],
  [
    "a plugged disk on SCSI",
    "",
    [plugged("p", { driver: "scsi-hd", bus: "scsi0.0", lun: 3 })],
    present(["p scsi-hd 0:4:3 p-img"]),
    `-blockdev {"driver":"raw","node-name":"p-img"} -device ` +
    `{"driver":"scsi-hd","id":"p","drive":"p-img","bus":"scsi0.0","channel":0,"scsi-id":4,"lun":3}`,
  ],
  [
    "a device that has gone, with its nodes, and the places of the others",
    "-blockdev file,node-name=f -blockdev raw,node-name=n,file=f -blockdev raw,node-name=other " +
    "-device v,id=gone,drive=n -device scsi,id=s -device v,addr=8 -device v",
    [],
    present(["s scsi 3", "- v 8", "- v 4"], ["other"]),
    "-blockdev raw,node-name=other -device scsi,id=s,addr=3 -device v,addr=8 -device v,addr=4",
  ],
  [
    "a node that is still there stays",
    "-blockdev raw,node-name=n -device v,id=gone,drive=n",
    [],
    present([], ["n"]),
    "-blockdev raw,node-name=n",
  ],
  [
    "-drive and JSON",
    `-drive id=d,if=none,file=/x -drive id=e,if=none -device {"driver":"v","id":"gone","drive":"d"} -device {"driver":"v"} ` +
    "-device {'driver':'scsi','id':'s','channel':0}",
    [],
    present(["s scsi 0:1:2", "- v 0x3.0x1"], [], ["e"]),
    `-drive id=e,if=none -device {"addr":"0x3.0x1","driver":"v"} ` +
    `-device {"scsi-id":1,"lun":2,'driver':'scsi','id':'s','channel':0}`,
  ],
  [
    "those without an id are told by their order: JSON last",
    `-device v,id=gone -device {"driver":"w"} -device w -device virtio-blk`,
    [],
    present(["- w 3", "- virtio-blk-pci 4", "- w 5"]),
    `-device {"addr":"5","driver":"w"} -device w,addr=3 -device virtio-blk,addr=4`,
  ],
  [
    "another disk in place of one of the start",
    "-blockdev raw,node-name=p-img,file=f -device v,id=p,drive=p-img -device v",
    [plugged("p")],
    present(["p virtio-blk-pci 2 p-img", "- v 3"], ["p-img"]),
    `-device v,addr=3 -blockdev {"driver":"raw","node-name":"p-img"} -device ` +
    `{"driver":"virtio-blk-pci","id":"p","drive":"p-img","bus":"pci.0","addr":"2"}`,
  ],
  [
    "one of the start whose guest was asked to give it up, and has not",
    "-device v,id=p",
    [{ id: "p", node: "n", disks: [] }],
    present(["p v 2 n"]),
    "-device v,id=p",
  ],
  [
    "one of a failover pair is not there, and has not gone",
    "-device e,id=p,failover_pair_id=net -device e",
    [],
    present(["- e 3"]),
    "-device e,id=p,failover_pair_id=net -device e",
  ],
];

for (const [name, command, disks, devices, wanted] of COMMANDS) {
  Deno.test(`the command of what a guest has now: ${name}`, () => {
    const record = { name: "vm1", command: words(`qemu ${command}`), plugged: disks };
    const now = presentCommand(record, devices, { set: [], add: [] });
    assert.equal(now.command.join(" "), `qemu ${wanted}`.trim());
    assert.deepEqual(now.warnings, []);
  });
}

function words(text: string): string[] {
  return text.trim().split(" ");
}

const SHAPELESS: PluggedDisk = { id: "p", node: "p-img", disks: [] };

/** What is plugged in, what QEMU has, and what is said to that. */
const REFUSALS: [string, PluggedDisk, PresentDevices, RegExp][] = [
  [
    "half plugged in",
    plugged("p"),
    present([]),
    /disk "p" is half plugged in .* run: lockvisor disk unplug vm1 p$/,
  ],
  [
    "by an older version",
    SHAPELESS,
    present(["p v 2 p-img"]),
    /not written down; .*--add device=…,id=p,drive=p-img,/,
  ],
  [
    "with another image by now",
    plugged("p"),
    present(["p v 2 snap"]),
    /has another image than was plugged in; state it/,
  ],
];

for (const [name, disk, devices, wanted] of REFUSALS) {
  Deno.test(`a disk that cannot be carried: ${name}`, () => {
    const record = { name: "vm1", command: ["qemu"], plugged: [disk] };
    const plan = (stated: { set?: string[]; add?: string[] }) =>
      presentCommand(record, devices, { set: options(stated.set), add: options(stated.add) });
    assert.throws(() => plan({}), (error) => {
      assert.ok(error instanceof LockvisorError && error.code === "data");
      assert.match(error.message, wanted);
      return true;
    });
    for (const stated of [{ add: ["device=v,id=p"] }, { set: ["device=v"] }]) {
      assert.deepEqual(plan(stated), { command: ["qemu"], plugged: [], unplugged: [], warnings: [] });
    }
  });
}

Deno.test("a node that is stated by hand takes the place of the plugged disk's own", () => {
  const record = { name: "vm1", command: ["qemu"], plugged: [plugged("p")] };
  const devices = present(["p v 2 p-img"]);
  const now = presentCommand(record, devices, { set: [], add: options(["blockdev=raw,node-name=p-img"]) });
  assert.deepEqual([now.command.length, now.command[1]], [3, "-device"]);
});

Deno.test("devices whose places cannot be stated are warned of, once others have gone", () => {
  const devices = present(["- v 2", "- v 3"]);
  const planned = (command: string) =>
    presentCommand({ name: "vm1", command: words(command) }, devices, { set: [], add: [] });
  assert.deepEqual(planned("qemu -device v -drive if=virtio").warnings, []);
  const { command, warnings: [warning, ...more] } = planned(
    "qemu -device v,id=gone -device v -drive if=virtio",
  );
  assert.equal(command.join(" "), "qemu -device v -drive if=virtio");
  assert.match(warning!, /without an id \(v\); .*--set device=…/);
  assert.deepEqual(more, []);
});

Deno.test("a device that the command there lacks is refused, unless something else may give it", () => {
  const devices = present(["a v 2", "b v 3", "- v 4"]);
  const refuse = (command: string) => () => refuseMissingDevices("vm1", words(command), devices);
  assert.throws(refuse("qemu -device v,id=a"), /has the device "b" \(v\), which its command there has not/);
  refuse(`qemu -device v,id=a -device {'driver':'v','id':'b'}`)();
  refuse("qemu -readconfig file")();
  refuse("/opt/vm1.sh -device v,id=a")();
  const console = present(["debugcon isa-debugcon -"]);
  refuseMissingDevices("vm1", words("qemu -debugcon file:log"), console);
  assert.throws(() => refuseMissingDevices("vm1", words("qemu"), console), /the device "debugcon"/);
});

Deno.test("what QEMU was told is read from a record, and need not be there", () => {
  for (const disk of [plugged("p"), SHAPELESS]) assert.deepEqual(readPluggedDisk(disk), disk);
  for (const odd of [null, "raw", []]) {
    assert.throws(() => readPluggedDisk({ ...SHAPELESS, blockdev: odd }), WrongShape);
  }
});

const LITERALS: [unknown, string | undefined, string][] = [
  ["on", "bool", "true"],
  [false, "bool", "false"],
  ["maybe", "bool", `"maybe"`],
  [true, "OnOffAuto", `"on"`],
  ["0x5000c500a0b1c2d3", "uint64", "5764824129520911059"],
  ["4k", "size32", "4096"],
  [512, "size", "512"],
  ["-1", "int32", "-1"],
  ["1.5", "int32", `"1.5"`],
  [7, "str", `"7"`],
  ["7", undefined, `"7"`],
  [7, undefined, "7"],
  [{ a: 1 }, "list", `{"a":1}`],
];

Deno.test("a device's options as JSON of the type that QEMU has for them", () => {
  for (const [value, type, wanted] of LITERALS) assert.equal(typedLiteral(value, type), wanted);
});
