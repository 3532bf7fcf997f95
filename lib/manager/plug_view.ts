import { isText } from "../files/json_shape.ts";
import type { QmpClient } from "../qmp/client.ts";

/** What QEMU tells of one id: the device that has it, and a node of its own. */
export interface PlugView {
  device: { kind: "absent" } | { kind: "disk"; node: string } | { kind: "other" };
  /** All that QEMU has open, by its nodes. */
  nodes: readonly NodeView[];
}

/** A node of QEMU's block layer. */
export interface NodeView {
  name: string;
  driver: string;
  readOnly: boolean;
  /** Its file, and the files of the images below it. */
  files: readonly string[];
}

/** Asks QEMU about an id. */
export async function lookAtPlug(monitor: QmpClient, id: string): Promise<PlugView> {
  const nodes = objects(await monitor.execute("query-named-block-nodes")).map(nodeOf);
  const devices = objects(await monitor.execute("qom-list", { path: "/machine/peripheral" }));
  if (!devices.some(({ name }) => name === id)) return { device: { kind: "absent" }, nodes };
  const path = `/machine/peripheral/${id}`;
  const blocks = objects(await monitor.execute("query-block"));
  const block = blocks.find(({ qdev }) =>
    qdev === id || qdev === path || (isText(qdev) && qdev.startsWith(`${path}/`))
  );
  const inserted = isObject(block?.inserted) ? block.inserted : undefined;
  const node = inserted?.["node-name"];
  return { device: isText(node) ? { kind: "disk", node } : { kind: "other" }, nodes };
}

/** Whether a device has a node. */
export async function isAttached(monitor: QmpClient, node: string): Promise<boolean> {
  const blocks = objects(await monitor.execute("query-block"));
  return blocks.some(({ qdev, inserted }) =>
    isText(qdev) && qdev !== "" && isObject(inserted) && inserted["node-name"] === node
  );
}

function nodeOf(node: Record<string, unknown>): NodeView {
  return {
    name: String(node["node-name"]),
    driver: String(node.drv),
    readOnly: node.ro === true,
    files: [...new Set(filesIn(node))],
  };
}

/** Every file name in what QEMU tells of a node: its own, its backing files', a data file, and those in `json:…`. */
function filesIn(value: unknown): string[] {
  if (!isObject(value)) return Array.isArray(value) ? value.flatMap(filesIn) : [];
  return Object.entries(value).flatMap(([name, each]) => {
    if (!isText(each)) return filesIn(each);
    if (!["file", "filename", "data-file"].includes(name)) return [];
    if (!each.startsWith("json:")) return [each];
    try {
      return filesIn(JSON.parse(each.slice("json:".length)));
    } catch {
      return [each];
    }
  });
}

function objects(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
