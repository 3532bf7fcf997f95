import { LockvisorError } from "../errors.ts";
import type { PlugRequest } from "../qemu/plug_request.ts";
import type { PlugView } from "./plug_view.ts";

/** What is left to do until a disk is plugged in: all of it, its device only, or nothing. */
export type PlugPlan = "add" | "attach" | "plugged";

/**
 * Compares what QEMU has under an id with what is wanted.
 * @throws {LockvisorError} `data` when the id is something else's
 */
export function planPlug({ device, nodes }: PlugView, request: PlugRequest, guest: string): PlugPlan {
  const { id, path, node } = request;
  const there = nodes.find(({ name }) => name === node.name);
  const isSame = there !== undefined && there.files.includes(path) && there.driver === node.driver &&
    there.readOnly === node.readOnly;
  if (device.kind === "absent" && there === undefined) return "add";
  if (device.kind === "absent" && isSame) return "attach";
  if (device.kind === "disk" && device.node === node.name && isSame) return "plugged";
  throw new LockvisorError(
    "data",
    `guest "${guest}" has something else under the id "${id}"; choose another --id, or unplug it first: lockvisor disk unplug ${guest} ${id}`,
  );
}

/** Whether what QEMU has under an id was made for this request: only that may be taken away again. */
export function isOfRequest({ device, nodes }: PlugView, { path, node }: PlugRequest): boolean {
  const there = nodes.find(({ name }) => name === node.name);
  if (there === undefined || !there.files.includes(path)) return false;
  return device.kind === "absent" || (device.kind === "disk" && device.node === node.name);
}
