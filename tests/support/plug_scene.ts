import assert from "node:assert/strict";
import { QmpClient } from "../../lib/qmp/client.ts";
import { lookAtPlug } from "../../lib/manager/plug_view.ts";
import { qemuCommand } from "./qemu.ts";
import { until } from "./until.ts";
import type { Finished, World } from "./world.ts";

/**
 * Disks on SCSI are unplugged without the guest's help; a guest without an operating system never gives one on PCI up.
 */
export const SCSI_BUS = ["-device", "virtio-scsi-pci,id=scsi0"];
export const SCSI_DEVICE = "scsi-hd,bus=scsi0.0";

/** What QEMU has, without what changes by itself. */
export interface QemuState {
  devices: string[];
  nodes: string[];
  files: string[];
}

/** A QEMU guest into which disks are plugged. */
export class PlugScene {
  readonly world: World;
  readonly guest: string;
  readonly #socket: string;

  private constructor(world: World, guest: string, socket: string) {
    this.world = world;
    this.guest = guest;
    this.#socket = socket;
  }

  /** Starts a guest with a disk of its own and a bus for more. */
  static async start(world: World, guest = "vm1", extra: string[] = []): Promise<PlugScene> {
    const [boot, socket] = [await world.qcow2(`${guest}.boot`), `${world.directory}/${guest}.qmp`];
    const monitor = ["-qmp", `unix:${socket},server=on,wait=off`];
    await world.startRunning([
      ..."run --name".split(" "),
      guest,
      "--",
      ...qemuCommand(boot, { extra: [...monitor, ...SCSI_BUS, ...extra] }),
    ]);
    const scene = new PlugScene(world, guest, socket);
    await until("the monitor answers", async () => await scene.state().then(() => true, () => false));
    return scene;
  }

  plug(disk: string, ...options: string[]): Promise<Finished> {
    return this.world.run(["disk", "plug", this.guest, disk, ...options]);
  }

  unplug(id: string, ...options: string[]): Promise<Finished> {
    return this.world.run(["disk", "unplug", this.guest, id, ...options]);
  }

  /** An image on a backing file. */
  async overlay(name: string, base: string): Promise<string> {
    const path = `${this.world.directory}/${name}`;
    const args = ["create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path];
    const made = await this.world.execute("qemu-img", args);
    assert.equal(made.code, 0, made.stderr);
    return path;
  }

  /** The file names of the disks that the guest has under lock, by the kernel's word. */
  async locked(): Promise<string[]> {
    const { code, stdout, stderr } = await this.world.run(["status", "--json", this.guest]);
    assert.equal(code, 0, stderr);
    const [{ resources, locks }] = JSON.parse(stdout).guests;
    assert.equal(locks.held, locks.total);
    return resources.map(({ name }: { name: string }) => name.split("/").at(-1)).sort();
  }

  /** What QEMU itself tells. */
  state(): Promise<QemuState> {
    return this.ask(async (qemu) => {
      const { nodes } = await lookAtPlug(qemu, "none");
      const devices = await qemu.execute("qom-list", { path: "/machine/peripheral" }) as { name: string }[];
      return {
        devices: devices.map(({ name }) => name).filter((name) => name !== "type").sort(),
        nodes: nodes.map(({ name, driver, readOnly }) => `${name} ${driver}${readOnly ? " readonly" : ""}`)
          .filter((line) => !line.startsWith("#")).sort(),
        files: [...new Set(nodes.flatMap(({ files }) => files))].map((file) => file.split("/").at(-1)!)
          .sort(),
      };
    });
  }

  /** Does something with the guest's monitor. */
  async ask<Result>(action: (qemu: QmpClient) => Promise<Result>): Promise<Result> {
    const qemu = await QmpClient.connect(this.#socket);
    try {
      return await action(qemu);
    } finally {
      await qemu.close();
    }
  }
}
