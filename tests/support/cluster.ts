import assert from "node:assert/strict";
import { QmpClient } from "../../lib/qmp/client.ts";
import { type GlusterMount, GlusterVolume, type VolumeOptions } from "./gluster.ts";
import { Guest } from "./guest.ts";
import { qemuCommand } from "./qemu.ts";
import { until } from "./until.ts";
import { BINARY, type Finished, World } from "./world.ts";

/** Two hosts on one volume. What GlusterFS locks, this kernel shows neither of them. */
export class Cluster implements AsyncDisposable {
  private constructor(readonly volume: GlusterVolume, readonly a: ClusterHost, readonly b: ClusterHost) {}

  /** The hosts mount the volume from different servers, as hosts do that are servers themselves. */
  static async create(options: VolumeOptions = {}): Promise<Cluster> {
    const volume = await GlusterVolume.create(options);
    try {
      const [one, other] = [await volume.mount("a", { id: "gv0" }), await volume.mount("b", { id: "/gv0" })];
      assert.notEqual(one.source, other.source);
      const [a, b] = [await ClusterHost.create("hv-a", one), await ClusterHost.create("hv-b", other)];
      return new Cluster(volume, a, b);
    } catch (error) {
      await volume[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.a[Symbol.asyncDispose]();
    await this.b[Symbol.asyncDispose]();
    await this.volume[Symbol.asyncDispose]();
  }
}

/**
 * Starts a QEMU guest with a monitor on a disk of the volume.
 * @param imageLocks `off`: QEMU leaves its own locks on the image out
 */
export async function startQemu(
  host: ClusterHost,
  name: string,
  disk: string,
  { imageLocks = "on" }: { imageLocks?: "on" | "off" } = {},
) {
  const socket = `${host.world.directory}/${name}.qmp`;
  const command = qemuCommand(host.path(disk), { extra: ["-qmp", `unix:${socket},server=on,wait=off`] })
    .map((word) => word.replace("file.driver=file,", `file.driver=file,file.locking=${imageLocks},`));
  const guest = await host.start([
    "run",
    ...["--name", name, "--qmp", socket, "--disk", host.path(disk), "--", ...command],
  ]);
  await until("QEMU has its disk and answers", () => answers(socket));
  return guest;
}

/** One host of a cluster: a mount of the volume, a world of its own, and a host name that only its processes see. */
export class ClusterHost implements AsyncDisposable {
  readonly name: string;
  readonly world: World;
  readonly mount: GlusterMount;
  readonly #guests: Guest[] = [];

  private constructor(name: string, world: World, mount: GlusterMount) {
    this.name = name;
    this.world = world;
    this.mount = mount;
  }

  /** A host whose lockspace is on the volume; the first host makes it. */
  static async create(name: string, mount: GlusterMount): Promise<ClusterHost> {
    const lockspace = `${mount.path}/lockspace`;
    const world = await World.create({ hostId: name, lockspace });
    const made = await world.run(["init", lockspace]);
    if (made.code !== 0) throw new Error(`init failed: ${made.stderr}`);
    return new ClusterHost(name, world, mount);
  }

  get lockspace(): string {
    return this.world.lockspace;
  }

  /** Runs lockvisor to its end; it is killed (137) when it hangs. */
  run(args: string[], env: Record<string, string> = {}): Promise<Finished> {
    const words = ["--signal=KILL", "60", "unshare", ...this.#named([BINARY, ...args])];
    return this.world.execute("timeout", words, { env });
  }

  /** Runs lockvisor with `--json`; it must succeed. */
  // deno-lint-ignore no-explicit-any -- each test knows what its command prints
  async json(args: string[], env: Record<string, string> = {}): Promise<any> {
    const { code, stdout, stderr } = await this.run([...args, "--json"], env);
    if (code !== 0) throw new Error(`${args.join(" ")}: exit status ${code}: ${stderr}`);
    return JSON.parse(stdout);
  }

  /** Runs lockvisor, but only from the instant at which nobody holds the gate's lock any more. */
  runBehind(gate: string, args: string[]): Promise<Finished> {
    const words = this.#named(["sh", "-c", 'flock -s "$0" true; exec "$@"', gate, BINARY, ...args]);
    return this.world.execute("unshare", words);
  }

  /** Starts a guest under lock and waits until its command runs. */
  async start(args: string[]): Promise<Guest> {
    const child = new Deno.Command("unshare", {
      args: this.#named([BINARY, ...args]),
      clearEnv: true,
      env: this.world.environment,
      cwd: this.world.directory,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const guest = new Guest(child, BINARY);
    this.#guests.push(guest);
    const before = ["unshare", "sh", BINARY].map((program) => executableOf(program));
    let ended = false;
    child.status.then(() => ended = true);
    await until(
      `guest ${child.pid} becomes its command`,
      () => ended || !before.includes(runsNow(child.pid)),
    );
    if (ended) throw new Error(`the guest did not start: ${(await guest.finished()).stderr}`);
    return guest;
  }

  /** The path of something on the volume, here. */
  path(name: string): string {
    return `${this.mount.path}/${name}`;
  }

  /** A real qcow2 image on the volume. */
  async qcow2(name: string): Promise<string> {
    const path = this.path(name);
    const made = await this.world.execute("qemu-img", ["create", "-q", "-f", "qcow2", path, "16M"]);
    if (made.code !== 0) throw new Error(`qemu-img failed: ${made.stderr}`);
    return path;
  }

  /** The words after `unshare` that run a command under this host's name; every exec keeps the pid. */
  #named(words: string[]): string[] {
    return ["--uts", "sh", "-c", 'hostname "$0"; exec "$@"', this.name, ...words];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.mount.thawClient(); // a process that ends waits for the client that serves its open files
    for (const guest of this.#guests) await guest.kill();
    await this.world[Symbol.asyncDispose]();
  }
}

/** The monitor's socket is there before the disks are open, but answers only afterwards. */
async function answers(socket: string): Promise<boolean> {
  try {
    await using qemu = await QmpClient.connect(socket);
    await qemu.execute("query-status");
    return true;
  } catch {
    return false;
  }
}

function executableOf(program: string): string | undefined {
  const folders = program.startsWith("/") ? [""] : ["/usr/bin/", "/bin/"];
  for (const folder of folders) {
    try {
      return Deno.realPathSync(folder + program);
    } catch { /* not there */ }
  }
  return undefined;
}

function runsNow(pid: number): string | undefined {
  try {
    return Deno.readLinkSync(`/proc/${pid}/exe`);
  } catch {
    return undefined;
  }
}
