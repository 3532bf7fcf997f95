import assert from "node:assert/strict";
import { QmpClient } from "../../lib/qmp/client.ts";
import type { Guest } from "./guest.ts";
import { canLock, flockedFiles } from "./kernel.ts";
import { until } from "./until.ts";
import type { Finished, World } from "./world.ts";

/** How a disk is locked, as flock(1) finds it on every slot of every key. */
export type KernelLock = "exclusive" | "shared" | "free" | string;

/** A reconciliation as `--json` tells it. */
export interface Reconciled {
  code: number;
  stderr: string;
  source: string | null;
  skipped: string | null;
  warnings: string[];
  /** The last part of each name, with what became of it; what is kept is left out. */
  changes: Record<string, string>;
  disks: { name: string; access: string; result: string; use?: string; holder?: { name: string } | null }[];
}

/** How a guest is started. */
export interface SceneOptions {
  name?: string;
  qemu: string[];
  /** Options of `run`. */
  run?: string[];
  qmp?: "with" | "without";
}

/** A QEMU guest whose block layer is changed by hand, behind lockvisor's back. */
export class ReconcileScene {
  readonly world: World;
  readonly name: string;
  readonly guest: Guest;
  readonly #socket: string;

  private constructor(world: World, name: string, guest: Guest) {
    this.world = world;
    this.name = name;
    this.guest = guest;
    this.#socket = `${world.directory}/${name}`;
  }

  /** Starts a guest, with a human monitor beside the one that lockvisor uses. */
  static async start(
    world: World,
    { name = "vm1", qemu, run = [], qmp = "with" }: SceneOptions,
  ): Promise<ReconcileScene> {
    const socket = `${world.directory}/${name}`;
    const guest = await world.startRunning([
      ...["run", "--name", name, ...run, "--", "qemu-system-x86_64"],
      ..."-accel tcg -nodefaults -no-user-config -display none -S".split(" "),
      ...(qemu.includes("-m") ? [] : ["-m", "16"]),
      ...["-device", "virtio-scsi-pci,id=scsi0", ...qemu],
      ...["-monitor", `unix:${socket}.hmp,server=on,wait=off`],
      ...(qmp === "with" ? ["-qmp", `unix:${socket}.qmp,server=on,wait=off`] : []),
    ]);
    const scene = new ReconcileScene(world, name, guest);
    await until("QEMU has started", async () => await scene.human("info name").then(() => true, () => false));
    return scene;
  }

  /** Runs `reconcile`. */
  async reconcile(...options: string[]): Promise<Reconciled> {
    const { code, stdout, stderr } = await this.world.run(["reconcile", this.name, "--json", ...options]);
    assert.notEqual(stdout, "", stderr);
    const { disks, source, skipped, warnings } = JSON.parse(stdout);
    const changes = Object.fromEntries(
      (disks as Reconciled["disks"]).filter(({ result }) => result !== "kept").map((
        { name, access, result },
      ) => [name.split("/").at(-1)!, `${result} ${access}`]),
    );
    return { code, stderr, disks, source, skipped, warnings, changes };
  }

  /** Runs `reconcile`, which must find nothing to do, and nothing amiss. */
  async settled(): Promise<void> {
    const { code, changes, stderr } = await this.reconcile();
    assert.deepEqual({ code, changes }, { code: 0, changes: {} }, stderr);
  }

  /** Runs `reconcile` until a disk is locked in a way: a guest without a system takes its time to give a device up. */
  async settledAfter(disk: string, lock: KernelLock): Promise<void> {
    await until(`${disk} is ${lock}`, async () => {
      assert.equal((await this.reconcile()).code, 0);
      return await this.lockOf(disk) === lock;
    });
  }

  /** Does something with the guest's QMP monitor. */
  async ask<Result>(action: (qemu: QmpClient) => Promise<Result>): Promise<Result> {
    const qemu = await QmpClient.connect(`${this.#socket}.qmp`);
    try {
      return await action(qemu);
    } finally {
      await qemu.close();
    }
  }

  execute(command: string, args?: Record<string, unknown>): Promise<unknown> {
    return this.ask((qemu) => qemu.execute(command, args));
  }

  /** Waits until a block job is as it should be. */
  job(id: string, status: string): Promise<void> {
    return until(`job ${id} is ${status}`, async () => {
      const jobs = await this.execute("query-jobs") as { id: string; status: string }[];
      return (jobs.find((job) => job.id === id)?.status ?? "gone") === status;
    });
  }

  /** Gives a command to the human monitor, and returns what it says. */
  async human(command: string): Promise<string> {
    const connection = await Deno.connect({ transport: "unix", path: `${this.#socket}.hmp` });
    try {
      let said = "";
      const chunk = new Uint8Array(4096);
      const readPrompt = async () => {
        while (!said.endsWith("(qemu) ")) {
          const count = await connection.read(chunk);
          if (count === null) throw new Error(`the monitor is closed: ${said}`);
          said += new TextDecoder().decode(chunk.subarray(0, count));
        }
      };
      await readPrompt();
      said = "";
      await connection.write(new TextEncoder().encode(`${command}\n`));
      await readPrompt();
      return said;
    } finally {
      connection.close();
    }
  }

  /** How the kernel has a disk locked; what differs between its slots is told as it is. */
  async lockOf(disk: string): Promise<KernelLock> {
    const { code, stdout, stderr } = await this.world.run(["inspect", "--json", disk]);
    assert.equal(code, 0, stderr);
    const { resource: { identities } } = JSON.parse(stdout) as {
      resource: { identities: { key: string }[] };
    };
    const slots = identities.flatMap(({ key }) =>
      ["a", "b"].map((slot) => `${this.world.lockspace}/${key}.${slot}`)
    );
    const found = await Promise.all(slots.map(async (slot) => {
      if (await canLock(slot)) return "free";
      return await canLock(slot, "shared") ? "shared" : "exclusive";
    }));
    const kinds = new Set(found);
    return kinds.size === 1 ? found[0]! : found.join(" ");
  }

  /** The locks of several disks, by the last part of their names. */
  async locks(...disks: string[]): Promise<Record<string, KernelLock>> {
    const found: Record<string, KernelLock> = {};
    for (const disk of disks) found[disk.split("/").at(-1)!] = await this.lockOf(disk);
    return found;
  }

  /** How many slots the guest's own process holds, by its fdinfo. */
  heldSlots(): number {
    return flockedFiles(this.guest.pid).length;
  }

  /** A resource as `status --json` shows it; undefined for one that is not there. */
  async resource(name: string): Promise<StatusResource | undefined> {
    const { code, stdout, stderr } = await this.world.run(["status", "--json", this.name]);
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout).guests[0].resources.find((each: StatusResource) => each.name === name);
  }

  status(): Promise<Finished> {
    return this.world.run(["status", this.name]);
  }
}

/** What `status --json` tells of a resource. */
export interface StatusResource {
  name: string;
  access: string;
  locked: boolean | null;
  unprotected?: { holder: { name: string | null } | null; access?: string };
}

/** An image on a backing file. */
export async function overlay(world: World, name: string, base: string): Promise<string> {
  const path = `${world.directory}/${name}`;
  const made = await world.execute("qemu-img", [
    "create",
    "-q",
    "-f",
    "qcow2",
    "-b",
    base,
    "-F",
    "qcow2",
    path,
  ]);
  assert.equal(made.code, 0, made.stderr);
  return path;
}

/** The options of a guest that has an image as a disk. */
export function qcow2Drive(path: string, id = "d0"): string[] {
  return ["-drive", `file=${path},format=qcow2,if=none,id=${id}`, "-device", `virtio-blk-pci,drive=${id}`];
}

/** What `blockdev-add` takes for an image. */
export function blockdev(node: string, driver: string, filename: string, readOnly = false) {
  return { driver, "node-name": node, "read-only": readOnly, file: { driver: "file", filename } };
}
