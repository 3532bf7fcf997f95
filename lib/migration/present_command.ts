import { LockvisorError } from "../errors.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import type { PluggedDisk } from "../manager/plugged_disk.ts";
import type { QemuOption } from "./destination_command.ts";
import { isJson, jsonObject, type OptionWord, statedIn, typedLiteral, withMore } from "./device_options.ts";
import type { PresentDevice, PresentDevices } from "./present_devices.ts";
import { type CommandWord, namesQemu, readCommand, writeCommand } from "./qemu_options.ts";

/** A guest's command as it would have been for the devices that the guest has now. */
export interface PresentCommand {
  command: string[];
  /** The ids of the disks that were plugged in since the start, and of the devices that have gone. */
  plugged: string[];
  unplugged: string[];
  warnings: string[];
}

/** What whoever moves the guest states himself: that counts. */
export interface StatedOptions {
  set: readonly QemuOption[];
  add: readonly QemuOption[];
}

/**
 * Adds the disks that were plugged in to a guest's command, in the order in which that was done, and leaves out the devices
 * that have gone. QEMU takes a guest's memory only if each device is at the same place: those of the plugged disks are
 * stated, and if anything is left out, so are those that QEMU has chosen by the order of the devices.
 * @throws {LockvisorError} `data` for a disk of which it is not known how it was plugged in, or which is half plugged in
 */
export function presentCommand(
  record: Pick<GuestRecord, "name" | "command" | "plugged">,
  present: PresentDevices,
  stated: StatedOptions,
): PresentCommand {
  const words = readCommand(record.command);
  const carried = disksToCarry(record, { words, present, stated });
  const ids = new Set(present.devices.map(({ id }) => id));
  const gone = optionsNamed(words, "device").filter((word) => {
    const options = statedIn(word.value);
    const id = options.get("id");
    // One of a failover pair is hidden until the guest's driver asks for it.
    return typeof id === "string" && !ids.has(id) && !options.has("failover_pair_id");
  });
  const left = new Set<CommandWord>([...gone, ...optionsNamed(words, "device").filter(isOneOf(carried))]);
  for (const word of nodesLeft(words, { devices: left, carried, present })) left.add(word);
  const kept = words.filter((word) => !left.has(word));
  const pinned = left.size === 0 ? { words: kept, warnings: [] } : withPlaces(kept, present.devices);
  const statedNodes = new Set(
    [...stated.set, ...stated.add].filter(({ name }) => name === "blockdev")
      .map(({ value }) => statedIn(value).get("node-name")),
  );
  return {
    command: writeCommand([...pinned.words, ...carried.flatMap((disk) => wordsOf(disk, statedNodes))]),
    plugged: carried.map(({ id }) => id),
    unplugged: gone.map((word) => String(statedIn(word.value).get("id"))),
    warnings: pinned.warnings,
  };
}

/**
 * Refuses what QEMU would refuse there, after all of the guest's memory was sent: a device that is missing.
 * @throws {LockvisorError} `data`
 */
export function refuseMissingDevices(
  guest: string,
  command: readonly string[],
  { devices }: PresentDevices,
): void {
  const words = readCommand(command);
  // A program that starts QEMU, and a file with options, give it devices that are not seen here.
  if (!namesQemu(command) || optionsNamed(words, "readconfig").length > 0) return;
  const ids = new Set(optionsNamed(words, "device").map(({ value }) => statedIn(value).get("id")));
  // What else makes a device and gives it an id (debugcon_parse in QEMU's vl.c).
  for (const { name } of optionsNamed(words, "debugcon")) ids.add(name);
  const missing = devices.find(({ id }) => id !== undefined && !ids.has(id));
  if (missing === undefined) return;
  throw new LockvisorError(
    "data",
    `guest "${guest}" cannot migrate: its QEMU has the device "${missing.id}" (${missing.type}), which its command there has not; ` +
      `state it with all that belongs to it, such as --add blockdev=… --add device=${missing.type},id=${missing.id},…, or unplug it before`,
  );
}

/** A disk that was plugged in, with the device that QEMU has for it. */
interface CarriedDisk {
  id: string;
  blockdev: Record<string, unknown>;
  device: Record<string, unknown>;
  present: PresentDevice;
}

function disksToCarry(
  { name: guest, plugged = [] }: Pick<GuestRecord, "name" | "plugged">,
  { words, present, stated }: {
    words: readonly CommandWord[];
    present: PresentDevices;
    stated: StatedOptions;
  },
): CarriedDisk[] {
  if (stated.set.some(({ name }) => name === "device")) return []; // all devices are stated
  const given = new Set(
    stated.add.filter(({ name }) => name === "device").map(({ value }) => statedIn(value).get("id")),
  );
  const onCommand = new Set(optionsNamed(words, "device").map(({ value }) => statedIn(value).get("id")));
  return plugged.filter(({ id }) => !given.has(id)).flatMap((disk) => {
    const { id, blockdev, device } = disk;
    const there = present.devices.find((each) => each.id === id);
    if (there === undefined) throw halfPlugged(guest, disk);
    if (blockdev === undefined || device === undefined) {
      if (onCommand.has(id)) return []; // its guest was asked to give it up, and has not
      throw unstated(guest, disk, "how it was plugged in is not written down");
    }
    if (there.node !== device.drive) throw unstated(guest, disk, "it has another image than was plugged in");
    return [{ id, blockdev, device, present: there }];
  });
}

function halfPlugged(guest: string, { id }: PluggedDisk): LockvisorError {
  return new LockvisorError(
    "data",
    `guest "${guest}" cannot migrate: disk "${id}" is half plugged in or half unplugged; do the one that was cut off again, or run: lockvisor disk unplug ${guest} ${id}`,
  );
}

function unstated(guest: string, { id, node }: PluggedDisk, why: string): LockvisorError {
  return new LockvisorError(
    "data",
    `guest "${guest}" cannot migrate: disk "${id}" was plugged in, and ${why}; state it as it is, such as --add blockdev=…,node-name=${node} --add device=…,id=${id},drive=${node}, or unplug it before: lockvisor disk unplug ${guest} ${id}`,
  );
}

/** Whether a `-device` is of an id that something else is plugged in under by now. */
function isOneOf(carried: readonly CarriedDisk[]): (word: OptionWord) => boolean {
  const ids = new Set(carried.map(({ id }) => id));
  return ({ value }) => ids.has(String(statedIn(value).get("id")));
}

/** What made the nodes of devices that are left out, as far as QEMU has them no more, or has them anew. */
function nodesLeft(
  words: readonly CommandWord[],
  { devices, carried, present }: {
    devices: ReadonlySet<CommandWord>;
    carried: readonly CarriedDisk[];
    present: PresentDevices;
  },
): OptionWord[] {
  const anew = new Set(carried.map(({ blockdev }) => blockdev["node-name"]));
  const leaving = new Set<unknown>();
  for (const word of devices) if (word.kind === "option") leaving.add(statedIn(word.value).get("drive"));
  const left = optionsNamed(words, "drive").filter(({ value }) => {
    const id = statedIn(value).get("id");
    return typeof id === "string" && leaving.has(id) && !present.drives.has(id);
  });
  // A node names those below it, which are written before it.
  for (const word of optionsNamed(words, "blockdev").reverse()) {
    const options = statedIn(word.value);
    const node = options.get("node-name");
    if (typeof node !== "string") continue;
    if (!anew.has(node) && (!leaving.has(node) || present.nodes.has(node))) continue;
    left.push(word);
    for (const value of options.values()) leaving.add(value);
  }
  return left;
}

/** States the places that QEMU has chosen, where devices are left out before others. */
function withPlaces(
  words: readonly CommandWord[],
  devices: readonly PresentDevice[],
): { words: CommandWord[]; warnings: string[] } {
  const known = devicesOf(words, devices);
  const seen = new Set(known.values());
  const unseen = devices.filter((each) =>
    each.id === undefined && !seen.has(each) && Object.keys(each.place).length > 0
  );
  return {
    words: words.map((word) => {
      const device = known.get(word);
      if (word.kind === "other" || device === undefined) return word;
      const options = statedIn(word.value);
      return withMore(word, Object.entries(device.place).filter(([name]) => !options.has(name)));
    }),
    warnings: unseen.length === 0 ? [] : [
      `devices have gone since the start, and where others are is not to be stated for those without an id (${
        [...new Set(unseen.map(({ type }) => type))].join(", ")
      }); if QEMU refuses the guest there, state all devices with their places (--set device=…)`,
    ],
  };
}

/** Which of QEMU's devices each `-device` is. Those without an id are told by their order, if none of their type is missing. */
function devicesOf(
  words: readonly CommandWord[],
  devices: readonly PresentDevice[],
): Map<CommandWord, PresentDevice> {
  const known = new Map<CommandWord, PresentDevice>();
  const unnamed: OptionWord[] = [];
  for (const word of optionsNamed(words, "device")) {
    const id = statedIn(word.value).get("id");
    const device = devices.find((each) => each.id !== undefined && each.id === id);
    if (id === undefined) unnamed.push(word);
    else if (device !== undefined) known.set(word, device);
  }
  const inOrder = [
    ...unnamed.filter(({ value }) => !isJson(value ?? "")),
    ...unnamed.filter(({ value }) => isJson(value ?? "")),
  ];
  for (const type of new Set(devices.map((each) => each.type))) {
    const made = devices.filter((each) => each.id === undefined && each.type === type);
    const asked = inOrder.filter(({ value }) => {
      const driver = statedIn(value).get("driver");
      return driver === type || `${driver}-pci` === type; // QEMU's short names: virtio-blk
    });
    if (made.length === asked.length) asked.forEach((word, index) => known.set(word, made[index]!));
  }
  return known;
}

/** What plugs the disk in at a start. As JSON: QEMU makes those devices last, when their buses are there. */
function wordsOf(
  { blockdev, device, present }: CarriedDisk,
  statedNodes: ReadonlySet<unknown>,
): OptionWord[] {
  const { bus, place, optionTypes } = present;
  const own = Object.entries(device).filter(([name]) =>
    !(name in place) && (name !== "bus" || bus === undefined)
  );
  const json = jsonObject([
    ...own.map(([name, value]) => [name, typedLiteral(value, optionTypes.get(name))] as const),
    ...(bus === undefined ? [] : [["bus", JSON.stringify(bus)] as const]),
    ...Object.entries(place).map(([name, value]) => [name, JSON.stringify(value)] as const),
  ]);
  return [
    ...(statedNodes.has(blockdev["node-name"]) ? [] : [optionWord("blockdev", JSON.stringify(blockdev))]),
    optionWord("device", json),
  ];
}

function optionWord(name: string, value: string): OptionWord {
  return { kind: "option", word: `-${name}`, name, value };
}

function optionsNamed(words: readonly CommandWord[], name: string): OptionWord[] {
  return words.filter((word) => word.kind === "option").filter((word) => word.name === name);
}
