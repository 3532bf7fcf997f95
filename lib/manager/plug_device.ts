import { LockvisorError } from "../errors.ts";
import { withinDeadline } from "../qmp/deadline.ts";
import { type QmpClient, QmpCommandError, type QmpEvent } from "../qmp/client.ts";
import { withMonitor } from "./guest_monitor.ts";
import type { GuestRecord } from "./guest_record.ts";
import { isAttached, lookAtPlug } from "./plug_view.ts";

/** How often a guest that was asked is looked at, besides the event, in milliseconds. */
const LOOK_MS = 500;
/** How long a device that has gone may still have its node, in milliseconds: QEMU frees it a moment later. */
const NODE_MS = 3000;
const PAUSE_MS = 10;

/** What became of a device that its guest was asked to give up. */
export type DeviceEnd = "gone" | "refused" | "ignored";

/** Asks a guest to give a device up, and waits until it has. */
export interface DeviceRemoval {
  id: string;
  timeoutMs: number;
  /** Called when the guest has been asked. */
  onRequested?: () => void;
}

/** Does something with a monitor that can remove devices. */
export async function withPlugMonitor<Result>(
  record: GuestRecord & { qmp: string },
  action: (monitor: PlugMonitor) => Promise<Result>,
): Promise<Result> {
  const events = new DeviceEvents();
  return await withMonitor(
    record,
    { onEvent: (event) => events.take(event) },
    (monitor) => action(new PlugMonitor(monitor, events)),
  );
}

/** A guest's monitor, and what it tells of devices meanwhile. */
export class PlugMonitor {
  readonly client: QmpClient;
  readonly #events: DeviceEvents;

  constructor(client: QmpClient, events: DeviceEvents) {
    this.client = client;
    this.#events = events;
  }

  /** Removes a device. A guest that has been asked before is not asked again, and waited for. */
  async removeDevice({ id, timeoutMs, onRequested = () => {} }: DeviceRemoval): Promise<DeviceEnd> {
    const deadline = performance.now() + timeoutMs;
    const ended = this.#events.endOf(id);
    if (await this.#ask(id) === "gone") return "gone";
    onRequested();
    for (;;) {
      const left = deadline - performance.now();
      const outcome = await withinDeadline(ended, Math.max(0, Math.min(left, LOOK_MS)));
      if (outcome.kind === "done") return outcome.value;
      // The event may have been told to somebody who was cut off.
      if ((await lookAtPlug(this.client, id)).device.kind === "absent") return "gone";
      if (performance.now() >= deadline) return "ignored";
    }
  }

  async #ask(id: string): Promise<"asked" | "gone"> {
    try {
      await this.client.execute("device_del", { id });
    } catch (error) {
      if (!(error instanceof QmpCommandError)) throw error;
      if (error.errorClass === "DeviceNotFound") return "gone";
      if (!/already in the process of unplug/.test(error.description)) throw error;
    }
    return "asked";
  }

  /**
   * Removes a node that a device has given up. One that QEMU has removed by itself, as it does with those of -drive, needs
   * nothing, and one that another device has as well stays.
   * @throws {LockvisorError} `locked` when something else in QEMU uses it
   */
  async removeNode(name: string): Promise<void> {
    const deadline = performance.now() + NODE_MS;
    for (;;) {
      try {
        return void await this.client.execute("blockdev-del", { "node-name": name });
      } catch (error) {
        if (!(error instanceof QmpCommandError)) throw error;
        const nodes = await this.client.execute("query-named-block-nodes", { flat: true }) as {
          "node-name": string;
        }[];
        if (!nodes.some((node) => node["node-name"] === name)) return;
        if (performance.now() > deadline) {
          if (await isAttached(this.client, name)) return;
          throw new LockvisorError(
            "locked",
            `QEMU does not give the node "${name}" up: ${error.description}; end what uses it, then try again`,
          );
        }
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

/** Who waits for the end of which device. */
class DeviceEvents {
  readonly #waiting = new Map<string, (end: DeviceEnd) => void>();

  endOf(id: string): Promise<DeviceEnd> {
    return new Promise((resolve) => this.#waiting.set(id, resolve));
  }

  take({ name, data }: QmpEvent): void {
    const { device } = data;
    if (typeof device !== "string") return;
    if (name === "DEVICE_DELETED") this.#waiting.get(device)?.("gone");
    if (name === "DEVICE_UNPLUG_GUEST_ERROR") this.#waiting.get(device)?.("refused");
  }
}
