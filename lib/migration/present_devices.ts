import { isText } from "../files/json_shape.ts";
import { withMonitor } from "../manager/guest_monitor.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { type QmpClient, QmpCommandError } from "../qmp/client.ts";

/** What QEMU was given by its options or its monitor, and still has. */
export interface PresentDevices {
  devices: readonly PresentDevice[];
  /** The names of the nodes of its block layer, and of what `-drive` has made. */
  nodes: ReadonlySet<string>;
  drives: ReadonlySet<string>;
}

/** A device of QEMU. */
export interface PresentDevice {
  /** Undefined for one that has none; those are in the order in which they were made. */
  id: string | undefined;
  /** Its type by QEMU's name, which is not always the one that it was asked for by. */
  type: string;
  /** The name of its bus; undefined for one that has none. */
  bus: string | undefined;
  /** Where it is on its bus, as `-device` has it; empty where that is not known. */
  place: Readonly<Record<string, string | number>>;
  /** The node that it has. */
  node: string | undefined;
  /** The types of its options; asked for the devices that were plugged in. */
  optionTypes: ReadonlyMap<string, string>;
}

/** QEMU's names of the types of buses; a PCI bus has several. */
const PCI_BUS = /^(PCI|PCIE|CXL|pxb-bus|pxb-pcie-bus|pxb-cxl-bus)$/;

/** Asks a guest's QEMU which devices it has, and where. @throws {LockvisorError} `unavailable` */
export async function lookAtDevices(record: GuestRecord & { qmp: string }): Promise<PresentDevices> {
  const plugged = new Set(record.plugged?.map(({ id }) => id));
  return await withMonitor(record, {}, async (monitor) => {
    const blocks = objects(await monitor.execute("query-block"));
    const nodes = objects(await monitor.execute("query-named-block-nodes", { flat: true }));
    const ports = await usbPorts(monitor);
    const devices: PresentDevice[] = [];
    for (const { path, id, type } of [...await named(monitor), ...await unnamed(monitor)]) {
      devices.push({
        id,
        type,
        ...await placeOf(monitor, path, ports.get(id ?? "")),
        node: nodeIn(blocks, path, id),
        optionTypes: id !== undefined && plugged.has(id) ? await optionTypes(monitor, type) : new Map(),
      });
    }
    return { devices, nodes: names(nodes, "node-name"), drives: names(blocks, "device") };
  });
}

interface Child {
  path: string;
  id: string | undefined;
  type: string;
}

async function named(monitor: QmpClient): Promise<Child[]> {
  return (await children(monitor, "/machine/peripheral")).map(({ name, ...child }) => ({
    ...child,
    id: name,
  }));
}

/** QEMU names them `device[0]` and so on. */
async function unnamed(monitor: QmpClient): Promise<Child[]> {
  const number = (name: string) => Number(/\[(\d+)\]$/.exec(name)?.[1]);
  return (await children(monitor, "/machine/peripheral-anon"))
    .sort((one, other) => number(one.name) - number(other.name))
    .map(({ path, type }) => ({ path, type, id: undefined }));
}

async function children(
  monitor: QmpClient,
  parent: string,
): Promise<{ name: string; path: string; type: string }[]> {
  return objects(await monitor.execute("qom-list", { path: parent })).flatMap(({ name, type }) => {
    const child = /^child<(.*)>$/.exec(String(type))?.[1];
    return child === undefined ? [] : [{ name: String(name), path: `${parent}/${name}`, type: child }];
  });
}

async function placeOf(
  monitor: QmpClient,
  path: string,
  port: string | undefined,
): Promise<Pick<PresentDevice, "bus" | "place">> {
  const get = (property: string, of = path) => propertyOf(monitor, of, property);
  const busPath = await get("parent_bus");
  if (!isText(busPath) || busPath === "") return { bus: undefined, place: {} };
  const bus = busPath.slice(busPath.lastIndexOf("/") + 1);
  const type = String(await get("type", busPath));
  if (PCI_BUS.test(type)) {
    const address = await get("addr");
    return { bus, place: typeof address === "number" ? { addr: pciAddress(address) } : {} };
  }
  if (type === "SCSI") {
    const [channel, id, lun] = [await get("channel"), await get("scsi-id"), await get("lun")];
    const isKnown = [channel, id, lun].every((each) => typeof each === "number");
    return { bus, place: isKnown ? { channel, "scsi-id": id, lun } as Record<string, number> : {} };
  }
  return { bus, place: type === "usb-bus" && port !== undefined ? { port } : {} };
}

/** A slot with its function, of the number that has both: qemu's PCI_DEVFN. */
function pciAddress(address: number): string {
  const [slot, inSlot] = [address >> 3, address & 7];
  return `0x${slot.toString(16)}` + (inSlot === 0 ? "" : `.0x${inSlot}`);
}

/** The ports that QEMU has chosen, by the ids of devices: told in words only. */
async function usbPorts(monitor: QmpClient): Promise<Map<string, string>> {
  let text: unknown;
  try {
    text = await monitor.execute("human-monitor-command", { "command-line": "info usb" });
  } catch (error) {
    if (!(error instanceof QmpCommandError)) throw error;
  }
  return new Map(
    [...String(text).matchAll(/^ *Device [\d.]+, Port ([\d.]+), .*, ID: (\S+)\r?$/gm)]
      .map(([, port, id]) => [id!, port!]),
  );
}

/** Undefined for what a device does not have, or one that has gone meanwhile. */
async function propertyOf(monitor: QmpClient, path: string, property: string): Promise<unknown> {
  try {
    return await monitor.execute("qom-get", { path, property });
  } catch (error) {
    if (error instanceof QmpCommandError) return undefined;
    throw error;
  }
}

async function optionTypes(monitor: QmpClient, type: string): Promise<Map<string, string>> {
  const list = objects(await monitor.execute("device-list-properties", { typename: type }));
  return new Map(list.map((each) => [String(each.name), String(each.type)]));
}

function nodeIn(
  blocks: readonly Record<string, unknown>[],
  path: string,
  id: string | undefined,
): string | undefined {
  const block = blocks.find(({ qdev }) =>
    isText(qdev) && (qdev === id || qdev === path || qdev.startsWith(`${path}/`))
  );
  const node = isObject(block?.inserted) ? block.inserted["node-name"] : undefined;
  return isText(node) ? node : undefined;
}

function names(list: readonly Record<string, unknown>[], field: string): Set<string> {
  return new Set(list.map((each) => each[field]).filter(isText));
}

function objects(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
