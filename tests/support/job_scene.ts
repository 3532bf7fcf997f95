import assert from "node:assert/strict";
import { QmpClient } from "../../lib/qmp/client.ts";
import { CountingDisk } from "./counting_disk.ts";
import type { Guest } from "./guest.ts";
import { canLock } from "./kernel.ts";
import { until } from "./until.ts";
import { BINARY, type Finished, type World } from "./world.ts";

/** How the guest's disk stands on QEMU's command line. */
export type DiskStyle =
  | "blockdev"
  | "named-nodes"
  | "drive"
  | "throttled"
  | "named-chain"
  | "nowhere"
  | "relative";

/** So slow that there is time to do something meanwhile. */
export const SLOWLY = ["--speed", "1M"];

/** A command that has done all of it, without a warning. */
export function assertDone({ code, stderr }: Finished): void {
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /warning/);
}

/** A QEMU guest that writes its disk all the time, on which jobs are done. */
export class JobScene {
  readonly world: World;
  readonly guest: Guest;
  readonly disk: string;
  readonly socket: string;
  readonly #ticks: string;

  private constructor(world: World, { guest, disk, socket, ticks }: {
    guest: Guest;
    disk: string;
    socket: string;
    ticks: string;
  }) {
    this.world = world;
    this.guest = guest;
    this.disk = disk;
    this.socket = socket;
    this.#ticks = ticks;
  }

  /**
   * Starts the guest `vm1` from the image `top`, whose disk is "vda" (with -drive: "d0").
   * @param options.data `much`: 15 MiB, so that a job that is slowed down takes long
   */
  static async start(
    world: World,
    { style = "blockdev", data = "little", extra = [], backing = [], runOptions = [], byHand = [], head = 0 }:
      {
        style?: DiskStyle;
        data?: "little" | "much";
        extra?: string[];
        /** Overlays over the first image, from the bottom up; the last is what the guest writes. */
        backing?: string[];
        runOptions?: string[];
        /** Where the guest writes; see CountingDisk. */
        head?: number;
        /** Disks as for --disk. */
        byHand?: string[];
      } = {},
  ): Promise<JobScene> {
    const names = ["top", ...backing];
    const paths = names.map((name) => `${world.directory}/${name}`);
    await CountingDisk.create(paths[0]!, head);
    for (let at = 1; at < paths.length; at++) {
      const args = ["create", "-q", "-f", "qcow2", "-b", paths[at - 1]!, "-F", "qcow2", paths[at]!];
      await must(world, "qemu-img", args);
    }
    const disk = paths.at(-1)!;
    if (data === "much") await must(world, "qemu-io", ["-f", "qcow2", "-c", "write -q -P 7 1M 15M", disk]);
    const [socket, ticks] = [`${world.directory}/vm1.qmp`, `${world.directory}/ticks`];
    const guest = await world.startRunning([
      ..."run --name vm1".split(" "),
      ...runOptions,
      ...byHand.flatMap((disk) => ["--disk", disk]),
      "--",
      "qemu-system-x86_64",
      ..."-accel tcg -M pc -nodefaults -no-user-config -display none -m 16".split(" "),
      ...diskOptions(style, disk, paths[0]!),
      "-chardev",
      `file,id=ticks,path=${ticks}`,
      "-device",
      "isa-debugcon,chardev=ticks,iobase=0xe9",
      "-qmp",
      `unix:${socket},server=on,wait=off`,
      ...extra,
    ]);
    const scene = new JobScene(world, { guest, disk, socket, ticks });
    await until("the guest writes", () => scene.ticks() > 0);
    return scene;
  }

  /** A path in the world's directory. */
  path(name: string): string {
    return name.startsWith("/") ? name : `${this.world.directory}/${name}`;
  }

  /** Whether there is such a file. */
  async has(name: string): Promise<boolean> {
    return await Deno.lstat(this.path(name)).then(() => true, () => false);
  }

  /** `lockvisor disk …` on the guest. */
  job(command: string, ...args: string[]): Promise<Finished> {
    return this.world.run(["disk", command, "vm1", ...args]);
  }

  /** The same in the background; it is killed at the end of `use` if it has not ended. */
  async during(args: string[], use: (job: RunningJob) => Promise<void>, binary = BINARY): Promise<void> {
    const job = new RunningJob(this.world, binary, ["disk", args[0]!, "vm1", ...args.slice(1)]);
    try {
      await use(job);
    } finally {
      await job.end();
    }
  }

  /** Waits until QEMU works on a job of lockvisor. */
  async jobBegun(): Promise<void> {
    await until("the job has begun", async () => {
      const jobs = await this.ask((qemu) => qemu.execute("query-jobs")) as { id: string; status: string }[];
      return jobs.some(({ id, status }) => !id.endsWith("-make") && status !== "concluded");
    });
  }

  /** How often the guest has written, and QEMU has told it that it is written. */
  ticks(): number {
    try {
      return Deno.statSync(this.#ticks).size;
    } catch {
      return 0;
    }
  }

  /** Waits until the guest has written a few more times. */
  async goesOn(): Promise<void> {
    const ticks = this.ticks();
    await until("the guest writes on", () => this.ticks() > ticks + 2);
  }

  /** Asks the guest's QEMU. */
  async ask<Result>(action: (qemu: QmpClient) => Promise<Result>): Promise<Result> {
    for (const deadline = Date.now() + 10_000;;) {
      let qemu;
      try {
        qemu = await QmpClient.connect(this.socket);
      } catch (error) {
        // lockvisor has it.
        if (Date.now() > deadline) throw error;
        continue;
      }
      try {
        return await action(qemu);
      } finally {
        await qemu.close();
      }
    }
  }

  /** The file names of what QEMU has open, each with the access that it has to it, by its own permissions. */
  async open(): Promise<Record<string, string>> {
    const [nodes, graph] = await this.ask(async (qemu) => [
      await qemu.execute("query-named-block-nodes", { flat: true }) as Node[],
      await qemu.execute("x-debug-query-block-graph") as Graph,
    ]);
    const open: Record<string, string> = {};
    for (const { "node-name": name, drv, file } of nodes!) {
      if (!["file", "host_device"].includes(drv)) continue;
      const id = graph!.nodes.find((node) => node.name === name && node.type === "block-driver")!.id;
      const isWritten = graph!.edges.some(({ child, perm }) =>
        child === id && (perm.includes("write") || perm.includes("resize"))
      );
      const short = file.split("/").at(-1)!;
      if (open[short] !== "exclusive") open[short] = isWritten ? "exclusive" : "readonly";
    }
    return open;
  }

  /** The guest's disks in its record, each with its access; the kernel must show each as locked so. */
  async locked(): Promise<Record<string, string>> {
    const { code, stdout, stderr } = await this.world.run(["status", "--json", "vm1"]);
    assert.equal(code, 0, stderr);
    const [{ resources }] = JSON.parse(stdout).guests as [{ resources: Shown[] }];
    for (const { name, access, keys, locked } of resources) {
      assert.equal(locked, true, `${name} is locked`);
      for (const slot of keys.flatMap((key) => [`${key}.a`, `${key}.b`])) {
        const file = `${this.world.lockspace}/${slot}`;
        const found = await canLock(file, "shared") ? "readonly" : "exclusive";
        assert.equal(found, access, `${name}: the kernel's mode of ${slot}`);
        assert.equal(await canLock(file), false, `${name}: the kernel's lock of ${slot}`);
      }
    }
    return Object.fromEntries(resources.map(({ name, access }) => [name.split("/").at(-1)!, access]));
  }

  /** What is locked is what QEMU has open, with the access that it has; nothing of a job is left. */
  async assertSettled(expected: Record<string, string>): Promise<void> {
    assert.deepEqual(await this.open(), expected, "what QEMU has open");
    assert.deepEqual(await this.locked(), expected, "what is locked");
    const jobs = await this.ask((qemu) => qemu.execute("query-jobs")) as unknown[];
    assert.deepEqual(jobs, [], "no job is left in QEMU");
    const nodes = await this.ask((qemu) => qemu.execute("query-named-block-nodes", { flat: true })) as Node[];
    const files = nodes.filter(({ drv }) => ["file", "host_device"].includes(drv)).map(({ file }) => file);
    assert.equal(new Set(files).size, files.length, `no file is open twice: ${files}`);
    assert.equal(this.record().diskJobs, undefined, "the record speaks of no job");
    const drafts = Array.from(Deno.readDirSync(this.world.directory), ({ name }) => name)
      .filter((name) => name.startsWith(".lockvisor-"));
    assert.deepEqual(drafts, [], "no draft of a file is left");
  }

  /** The guest's record. */
  record(): {
    diskJobs?: unknown[];
    settledJobs?: unknown[];
    replacedImages?: unknown[];
    resources: Shown[];
  } {
    const directory = `${this.world.runtimeDir}/guests`;
    const file = Array.from(Deno.readDirSync(directory), ({ name }) => name).find((name) =>
      name.endsWith(".json")
    );
    return JSON.parse(Deno.readTextFileSync(`${directory}/${file}`));
  }

  /** Ends the guest in order, and gives what its disk has: nothing that it was told to be written is lost. */
  async assertWhole(image: string, format = "qcow2"): Promise<void> {
    const stopped = await this.world.run(["stop", "vm1"]);
    assert.equal(stopped.code, 0, stopped.stderr);
    const ticks = this.ticks();
    const path = this.path(image);
    if (format !== "raw") assert.equal(await faults(this.world, path), "", `${image} is whole`);
    const count = await this.counter(path, format);
    // The last write may have been done without a tick.
    assert.ok(
      count === ticks || count === ticks + 1,
      `${image} has ${count}, and the guest wrote ${ticks} times`,
    );
  }

  /** The counter in an image that nobody has open. */
  async counter(path: string, format = "qcow2"): Promise<number> {
    const raw = `${this.world.directory}/counter.raw`;
    await must(this.world, "qemu-img", ["convert", "-f", format, "-O", "raw", path, raw]);
    try {
      using file = Deno.openSync(raw, { read: true });
      file.seekSync(512, Deno.SeekMode.Start);
      const bytes = new Uint8Array(4);
      file.readSync(bytes);
      return new DataView(bytes.buffer).getUint32(0, true);
    } finally {
      Deno.removeSync(raw);
    }
  }
}

/** A command that goes on. */
export class RunningJob {
  readonly #child: Deno.ChildProcess;
  readonly #output: Promise<[string, string]>;

  constructor(world: World, binary: string, args: string[]) {
    this.#child = new Deno.Command(binary, {
      args,
      clearEnv: true,
      env: world.environment,
      cwd: world.directory,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#output = Promise.all([
      new Response(this.#child.stdout).text(),
      new Response(this.#child.stderr).text(),
    ]);
  }

  get pid(): number {
    return this.#child.pid;
  }

  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  async finished(): Promise<Finished> {
    const [{ code, signal }, [stdout, stderr]] = await Promise.all([this.#child.status, this.#output]);
    return { code, signal, stdout, stderr };
  }

  async end(): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch { /* it has ended */ }
    await this.finished();
  }
}

interface Node {
  "node-name": string;
  drv: string;
  file: string;
}

interface Graph {
  nodes: { id: number; name: string; type: string }[];
  edges: { parent: number; child: number; name: string; perm: string[] }[];
}

interface Shown {
  name: string;
  access: string;
  keys: string[];
  locked?: boolean | null;
}

function diskOptions(style: DiskStyle, path: string, base: string): string[] {
  const device = (node: string) => ["-device", `virtio-blk-pci,drive=${node},id=vda,bootindex=1`];
  switch (style) {
    case "blockdev":
      return [
        "-blockdev",
        `driver=qcow2,node-name=d0,file.driver=file,file.filename=${path}`,
        ...device("d0"),
      ];
    case "named-nodes":
      return [
        ...["-blockdev", `driver=file,node-name=f0,filename=${path}`],
        ...["-blockdev", "driver=qcow2,node-name=d0,file=f0", ...device("d0")],
      ];
    case "named-chain":
      return [
        ...["-blockdev", `driver=qcow2,node-name=b0,read-only=on,file.driver=file,file.filename=${base}`],
        ...["-blockdev", `driver=qcow2,node-name=d0,file.driver=file,file.filename=${path},backing=b0`],
        ...device("d0"),
      ];
    case "drive":
      return ["-drive", `file=${path},format=qcow2,if=none,id=d0`, ...device("d0")];
    case "relative":
      return diskOptions("drive", path.slice(path.lastIndexOf("/") + 1), base);
    case "nowhere":
      return ["-drive", `file=${path},format=qcow2,if=none,id=d0,snapshot=on`, ...device("d0")];
    case "throttled":
      return [
        ...["-object", "throttle-group,id=slow,x-iops-total=10000"],
        ...["-blockdev", `driver=qcow2,node-name=d0,file.driver=file,file.filename=${path}`],
        ...["-blockdev", "driver=throttle,node-name=t0,throttle-group=slow,file=d0", ...device("t0")],
      ];
  }
}

/** What `qemu-img check` says of an image that nobody has open; empty when it is whole. */
export async function faults(world: World, path: string): Promise<string> {
  const { code, stdout, stderr } = await world.execute("qemu-img", ["check", "-q", path]);
  return code === 0 ? stdout + stderr : `exit status ${code}: ${stdout}${stderr}`;
}

async function must(world: World, program: string, args: string[]): Promise<void> {
  const { code, stderr, stdout } = await world.execute(program, args);
  assert.equal(code, 0, `${program} ${args.join(" ")}: ${stderr}${stdout}`);
}
