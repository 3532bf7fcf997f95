import assert from "node:assert/strict";
import { QmpClient } from "../../lib/qmp/client.ts";
import type { Guest } from "./guest.ts";
import { qemuCommand } from "./qemu.ts";
import { until } from "./until.ts";
import { World } from "./world.ts";

/** How the two sides of a migration are related: two hosts, or one with two runtime directories, or one with one. */
export type Hosts = "two" | "one-id" | "one-directory";

/** What `migrate complete`, `cancel` and `status` say about one side, as JSON. */
export interface SideResult {
  code: number;
  stderr: string;
  outcome?: string;
  error?: { code: string; message: string };
}

/** Two hosts that share a lockspace and a declared storage, with what it takes to move guest vm1 from one to the other. */
export class TwoHosts implements AsyncDisposable {
  readonly #qemus: Guest[] = [];

  private constructor(readonly source: World, readonly destination: World, readonly images: string) {}

  static async create(hosts: Hosts = "two"): Promise<TwoHosts> {
    const source = await World.create({ hostId: "hv1" });
    const images = `${source.directory}/images`;
    await Deno.mkdir(images);
    const destination = hosts === "one-directory"
      ? source
      : await World.create({ hostId: hosts === "two" ? "hv2" : "hv1", lockspace: source.lockspace });
    for (const world of new Set([source, destination])) {
      await Deno.writeTextFile(world.configFile, `[[storage]]\nid = "san1"\npath = "${images}"\n`);
    }
    return new TwoHosts(source, destination, images);
  }

  get ticket(): string {
    return `${this.source.directory}/vm1.ticket`;
  }

  /** The disk of vm1. */
  get disk(): string {
    return `${this.images}/vm1.qcow2`;
  }

  socketOf(side: "out" | "in"): string {
    return `${this.source.directory}/${side}.qmp`;
  }

  /** Starts vm1, which does nothing, with a disk. */
  async startSleeping(...args: string[]): Promise<Guest> {
    await Deno.writeFile(this.disk, new Uint8Array(512));
    return await this.source.startRunning([
      "run",
      "--name",
      "vm1",
      "--disk",
      this.disk,
      ...args,
      "--",
      "sleep",
      "600",
    ]);
  }

  /** Starts vm1, a real QEMU with a monitor. */
  async startQemu(...args: string[]): Promise<Guest> {
    const made = await this.source.execute("qemu-img", ["create", "-q", "-f", "qcow2", this.disk, "16M"]);
    assert.equal(made.code, 0, made.stderr);
    const command = qemuCommand(this.disk, { extra: monitorArgs(this.socketOf("out")) });
    const guest = await this.source.startRunning([
      ..."run --name vm1 --qmp".split(" "),
      this.socketOf("out"),
      ...["--disk", this.disk, ...args, "--"],
      ...command,
    ]);
    this.#qemus.push(guest);
    await monitorAnswers(this.socketOf("out"));
    return guest;
  }

  /** `migrate prepare`, with a ticket in a file. */
  async prepare(): Promise<void> {
    const done = await this.source.run([
      ...["migrate", "prepare", "vm1", "--to", "ssh://hv2", "--ticket", this.ticket],
    ]);
    assert.equal(done.code, 0, done.stderr);
  }

  /** `migrate in`, with a command that does nothing. */
  comeInSleeping(): Promise<Guest> {
    return this.destination.startRunning(["migrate", "in", "--ticket", this.ticket, "--", "sleep", "600"]);
  }

  /** `migrate in`, with a QEMU that waits for the guest. */
  async comeInQemu(...extra: string[]): Promise<Guest> {
    const socket = this.socketOf("in");
    const command = qemuCommand(this.disk, {
      extra: [...monitorArgs(socket), "-incoming", `unix:${this.stream}`, ...extra],
    });
    const guest = await this.destination.startRunning(
      ["migrate", "in", "--ticket", this.ticket, "--qmp", socket, "--", ...command],
    );
    this.#qemus.push(guest);
    await monitorAnswers(socket);
    return guest;
  }

  get stream(): string {
    return `${this.source.directory}/stream`;
  }

  /** Has QEMU send the guest, and waits until both sides say that it has gone. */
  async send(): Promise<void> {
    await ask(this.socketOf("out"), async (monitor) => {
      await monitor.execute("migrate", { uri: `unix:${this.stream}` });
      await until("everything was sent", async () => (await statusOf(monitor)) === "postmigrate");
    });
    await ask(
      this.socketOf("in"),
      (monitor) => until("the guest has come", async () => (await statusOf(monitor)) !== "inmigrate"),
    );
  }

  /** What QEMU says of itself. */
  runState(side: "out" | "in"): Promise<string> {
    return ask(this.socketOf(side), statusOf);
  }

  /** `migrate complete` or `cancel` on one side. */
  async end(action: "complete" | "cancel", side: "out" | "in", ...args: string[]): Promise<SideResult> {
    const world = side === "out" ? this.source : this.destination;
    const { code, stderr, stdout } = await world.run(
      ["migrate", action, "vm1", "--json", "--side", side, ...args],
    );
    return { code, stderr, ...JSON.parse(stdout) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const guest of this.#qemus) await guest.kill();
    if (this.destination !== this.source) await this.destination[Symbol.asyncDispose]();
    await this.source[Symbol.asyncDispose]();
  }
}

function monitorArgs(socket: string): string[] {
  return ["-qmp", `unix:${socket},server=on,wait=off`];
}

async function ask<Result>(socket: string, action: (monitor: QmpClient) => Promise<Result>): Promise<Result> {
  await using monitor = await QmpClient.connect(socket);
  return await action(monitor);
}

async function statusOf(monitor: QmpClient): Promise<string> {
  return (await monitor.execute("query-status") as { status: string }).status;
}

async function monitorAnswers(socket: string): Promise<void> {
  await until(`the monitor ${socket} answers`, async () => {
    try {
      await ask(socket, statusOf);
      return true;
    } catch {
      return false;
    }
  });
}

/** The guests that a world's `status` shows. */
export async function statusIn(
  world: World,
): Promise<{ pid: number; state: string; locks: Record<string, number> }[]> {
  const { code, stdout, stderr } = await world.run(["status", "--json"]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout).guests;
}
