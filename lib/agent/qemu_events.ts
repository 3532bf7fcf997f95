import { LockvisorError } from "../errors.ts";
import { eventMonitorOf } from "../manager/event_monitor.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { QmpClient } from "../qmp/client.ts";

/** After these QEMU may have other disks open than before; qapi/block-core.json, qapi/job.json, qapi/qdev.json. */
const TELLING: ReadonlySet<string> = new Set([
  "BLOCK_JOB_CANCELLED",
  "BLOCK_JOB_COMPLETED",
  "BLOCK_JOB_READY",
  "DEVICE_DELETED",
  "DEVICE_TRAY_MOVED",
  "JOB_STATUS_CHANGE",
]);

/** An event takes a line of some hundred bytes, and there may be a thousand guests. */
const READ_BYTES = 4096;

/** Hears what QEMUs tell by themselves, where a guest has a monitor for that alone. */
export class QemuEvents {
  readonly #heard: (uuid: string) => void;
  readonly #subscriptions = new Map<string, { pid: number; client: Promise<QmpClient | undefined> }>();

  /** @param heard told of guests that may have other disks open than before */
  constructor(heard: (uuid: string) => void) {
    this.#heard = heard;
  }

  /** Subscribes to guests that are new, or whose connection has ended, and lets go of those that are gone. */
  watch(records: readonly GuestRecord[]): void {
    const guests = new Map(records.map((record) => [record.uuid, record]));
    for (const [uuid, { pid }] of this.#subscriptions) {
      if (guests.get(uuid)?.carriers[0].pid !== pid) void this.#drop(uuid);
    }
    for (const record of guests.values()) {
      if (this.#subscriptions.has(record.uuid)) continue;
      const socket = eventMonitorOf(record);
      if (socket !== undefined) this.#subscribe(record, socket);
    }
  }

  /** Lets go of all. */
  async end(): Promise<void> {
    await Promise.all([...this.#subscriptions.keys()].map((uuid) => this.#drop(uuid)));
  }

  #subscribe({ uuid, carriers: [{ pid }] }: GuestRecord, path: string): void {
    const client = this.#connect(uuid, { pid, path });
    const subscription = { pid, client };
    this.#subscriptions.set(uuid, subscription);
    // What cannot be heard is looked at from time to time all the same; the next look tries again.
    client.then((connected) => connected?.ended).finally(() => {
      if (this.#subscriptions.get(uuid) === subscription) this.#subscriptions.delete(uuid);
    });
  }

  async #connect(
    uuid: string,
    { pid, path }: { pid: number; path: string },
  ): Promise<QmpClient | undefined> {
    try {
      const client = await QmpClient.connect(path, {
        expectedPid: pid,
        readBytes: READ_BYTES,
        onEvent: ({ name }) => {
          if (TELLING.has(name)) this.#heard(uuid);
        },
      });
      this.#heard(uuid); // it may have told something while nobody heard it
      return client;
    } catch (error) {
      if (error instanceof LockvisorError) return undefined;
      throw error;
    }
  }

  async #drop(uuid: string): Promise<void> {
    const subscription = this.#subscriptions.get(uuid);
    this.#subscriptions.delete(uuid);
    await (await subscription?.client)?.close();
  }
}
