import { QmpClient } from "../../lib/qmp/client.ts";
import type { Guest } from "./guest.ts";
import { until } from "./until.ts";

/** How QEMU is to start: with a guest from its disk, or waiting for one that is sent to it. */
export interface QemuStart {
  /** Where its monitors are: `<place>.qmp` is lockvisor's, `<place>.test` and `<place>.events` the test's own. */
  place: string;
  disks: readonly QemuDisk[];
  /** As `-incoming` has it. */
  incoming?: string;
  extra?: readonly string[];
}

/** A disk of a guest; writable unless told. */
export interface QemuDisk {
  path: string;
  access?: "writable" | "readonly" | "shared";
}

/** QEMU with three monitors: a monitor talks to one program at a time, and lockvisor's must be free. */
export function migratingQemuCommand({ place, disks, incoming, extra = [] }: QemuStart): string[] {
  const drives = disks.flatMap(({ path, access }, index) => [
    "-blockdev",
    `driver=qcow2,node-name=d${index},file.driver=file,file.filename=${path}${
      access === "readonly" ? ",read-only=on" : ""
    }`,
    "-device",
    `virtio-blk-pci,drive=d${index}${access === "shared" ? ",share-rw=on" : ""}`,
  ]);
  return [
    "qemu-system-x86_64",
    ..."-accel tcg -M pc -nodefaults -no-user-config -display none -m 16".split(" "),
    ...drives,
    ...["qmp", "test", "events"].flatMap((end) => ["-qmp", `unix:${place}.${end},server=on,wait=off`]),
    ...(incoming === undefined ? [] : ["-incoming", incoming]),
    ...extra,
  ];
}

/** A QEMU that lockvisor has become, seen through the test's own monitor. */
export class MigratingQemu {
  constructor(readonly guest: Guest, readonly place: string) {}

  get pid(): number {
    return this.guest.pid;
  }

  /** Waits until its monitors are there. */
  async ready(): Promise<this> {
    await until("QEMU answers", async () => {
      try {
        await this.state();
        return true;
      } catch {
        return false; // it does not listen yet
      }
    });
    return this;
  }

  /** QMP query-status: `running`, `inmigrate`, `postmigrate`…; or that it does not answer, having ended. */
  async state(): Promise<string> {
    return await this.#ask("query-status");
  }

  /** QMP query-migrate: how far its sending has come. */
  async sending(): Promise<string> {
    return await this.#ask("query-migrate");
  }

  async #ask(command: string): Promise<string> {
    try {
      const { status = "none" } = await this.execute(command) as { status?: string };
      return status;
    } catch (error) {
      // It may be on its way out.
      await new Promise((resolve) => setTimeout(resolve, 50));
      if (isAlive(this.pid)) throw error;
      return "ended";
    }
  }

  async execute(command: string, args?: Record<string, unknown>): Promise<unknown> {
    const monitor = await QmpClient.connect(`${this.place}.test`);
    try {
      return await monitor.execute(command, args);
    } finally {
      await monitor.close();
    }
  }

  /** Has it send its guest; returns at once. */
  async send(uri: string): Promise<void> {
    await this.execute("migrate", { uri });
  }

  /** Has it send so slowly that the guest does not get anywhere within a test. */
  async sendSlowly(uri: string): Promise<void> {
    await this.execute("migrate-set-parameters", { "max-bandwidth": 1000 });
    await this.send(uri);
    await until("QEMU is sending", async () => (await this.sending()) === "active");
  }

  /** Waits until everything has gone. */
  async sent(): Promise<void> {
    await until("QEMU has sent everything", async () => (await this.sending()) === "completed");
  }
}

/** Whether a process runs; a zombie does not. */
export function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return false;
  }
}
