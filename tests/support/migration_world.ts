import assert from "node:assert/strict";
import { lockFiles } from "./kernel.ts";
import { CountingDisk } from "./counting_disk.ts";
import type { Guest } from "./guest.ts";
import { MigratingQemu, migratingQemuCommand, type QemuDisk } from "./migrating_qemu.ts";
import { until } from "./until.ts";
import { type Finished, World } from "./world.ts";

/** How a guest is started or comes in. */
export interface GuestOptions {
  name?: string;
  disks: readonly QemuDisk[];
  /** More for lockvisor, before the command. */
  options?: readonly string[];
  /** More for QEMU. */
  extra?: readonly string[];
  /** `defer`: QEMU is told by its monitor where to listen. */
  incoming?: "unix" | "defer";
}

/**
 * Two hosts on one machine, with storage that both have: each has its own runtime directory and host id, and both declare the
 * directory of the images, in which the lockspace is too. Or one host, within which a guest migrates.
 */
export class MigrationWorld implements AsyncDisposable {
  #count = 0;

  private constructor(
    /** The directory that both hosts have. */
    readonly images: string,
    readonly source: World,
    readonly destination: World,
  ) {}

  static async create({ hosts = "two" }: { hosts?: "two" | "one" } = {}): Promise<MigrationWorld> {
    const images = await Deno.realPath(await Deno.makeTempDir({ prefix: "lockvisor-test-" }));
    const lockspace = `${images}/lockspace`;
    const make = async (hostId: string) => {
      const world = await World.create({ hostId, lockspace });
      await declareStorage(world, images);
      return world;
    };
    const source = await make("host-a");
    const destination = hosts === "one" ? source : await make("host-b");
    const world = new MigrationWorld(images, source, destination);
    await done(source, ["init", lockspace]);
    return world;
  }

  get lockspace(): string {
    return this.source.lockspace;
  }

  /** An empty file to serve as a disk. */
  async disk(name: string): Promise<string> {
    const path = `${this.images}/${name}`;
    await Deno.writeFile(path, new Uint8Array(512));
    return path;
  }

  /** An image from which a guest starts that writes all the time. */
  countingDisk(name: string): Promise<CountingDisk> {
    return CountingDisk.create(`${this.images}/${name}`);
  }

  /** A place for sockets that nobody had before. */
  place(world: World): string {
    return `${world.directory}/${this.#count++}`;
  }

  /** Starts QEMU under lock and waits until its guest runs. */
  async start(
    { name = "vm1", disks, options = [], extra = [] }: GuestOptions,
    world = this.source,
  ): Promise<MigratingQemu> {
    const place = this.place(world);
    const command = migratingQemuCommand({ place, disks, extra });
    const guest = await world.startRunning([
      ...["run", "--name", name, "--qmp", `${place}.qmp`],
      ...disks.flatMap(diskOption),
      ...options,
      "--",
      ...command,
    ]);
    const qemu = await new MigratingQemu(guest, place).ready();
    assert.equal(await qemu.state(), "running");
    return qemu;
  }

  /** Prepares a guest to leave. @returns the file of its ticket */
  async prepare(name = "vm1", world = this.source, options: readonly string[] = []): Promise<string> {
    const ticket = this.place(world) + ".ticket";
    await done(world, ["migrate", "prepare", name, "--to", "ssh://host-b", "--ticket", ticket, ...options]);
    return ticket;
  }

  /** Has QEMU come in by a ticket and wait for its guest. */
  async comeIn(
    ticket: string,
    { disks, options = [], extra = [], incoming = "unix" }: GuestOptions,
    world = this.destination,
  ): Promise<MigratingQemu> {
    const place = this.place(world);
    const command = migratingQemuCommand({
      place,
      disks,
      extra,
      incoming: incoming === "defer" ? "defer" : uriOf(place),
    });
    const guest = await world.startRunning([
      ...["migrate", "in", "--ticket", ticket, "--qmp", `${place}.qmp`],
      ...options,
      "--",
      ...command,
    ]);
    const qemu = await new MigratingQemu(guest, place).ready();
    if (incoming === "defer") await qemu.execute("migrate-incoming", { uri: uriOf(place) });
    await until("QEMU waits for its guest", async () => (await qemu.state()) === "inmigrate");
    return qemu;
  }

  /** Offers and notes of migrations that lie beside the keys, and records of guests that come in. */
  leftOvers(): string[] {
    const ends = /\.migration\.json$|\.incoming\.json$/;
    const notes = filesBelow(this.lockspace).filter((path) => ends.test(path));
    const records = [this.source, this.destination].flatMap(({ runtimeDir }) =>
      filesBelow(`${runtimeDir}/guests`).filter((path) => ends.test(path))
    );
    return [...notes, ...records];
  }

  /** Whether nobody has any lock file of the lockspace locked. */
  isFree(): boolean {
    return lockFiles(this.lockspace).every((name) => {
      using file = Deno.openSync(`${this.lockspace}/${name}`, { read: true, write: true });
      return file.tryLockSync(true);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.source[Symbol.asyncDispose]();
    if (this.destination !== this.source) await this.destination[Symbol.asyncDispose]();
    await Deno.remove(this.images, { recursive: true });
  }
}

/** Where a QEMU that has come in listens. */
export function uriOf(place: string): string {
  return `unix:${place}.mig`;
}

/** Declares a directory as storage that other hosts have too. */
export async function declareStorage(world: World, directory: string, id = "san1"): Promise<void> {
  await Deno.writeTextFile(world.configFile, `[[storage]]\npath = "${directory}"\nid = "${id}"\n`);
}

function diskOption({ path, access }: QemuDisk): string[] {
  return ["--disk", access === undefined || access === "writable" ? path : `${path},access=${access}`];
}

/** Starts a guest without processors under lock. */
export function startSleep(world: World, name: string, options: readonly string[]): Promise<Guest> {
  return world.startRunning(["run", "--name", name, ...options, "--", "sleep", "600"]);
}

/** Has a guest without processors come in by a ticket. */
export function comeInSleep(world: World, ticket: string, options: readonly string[] = []): Promise<Guest> {
  return world.startRunning(["migrate", "in", "--ticket", ticket, ...options, "--", "sleep", "600"]);
}

/** Runs lockvisor, which must succeed. */
export async function done(world: World, args: readonly string[]): Promise<Finished> {
  const finished = await world.run([...args]);
  assert.equal(finished.code, 0, `${args.join(" ")}: ${finished.stderr}`);
  return finished;
}

/** Runs lockvisor with `--json`, which must succeed. */
// deno-lint-ignore no-explicit-any -- each test knows what its command prints
export async function json(world: World, args: readonly string[]): Promise<any> {
  return JSON.parse((await done(world, [...args, "--json"])).stdout);
}

/**
 * Which slots a process has locked of each key that it has open, by the kernel: `ab`, `a`, `b`, or nothing.
 */
export function slotsOf(pid: number, lockspace: string): Map<string, string> {
  const slots = new Map<string, Set<string>>();
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    try {
      const path = Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
      const [, key, slot] = /^([0-9a-f]{64})\.([ab])$/.exec(path.slice(lockspace.length + 1)) ?? [];
      if (!path.startsWith(`${lockspace}/`) || key === undefined || slot === undefined) continue;
      const found = slots.get(key) ?? new Set();
      slots.set(key, found);
      if (/^lock:.*FLOCK/m.test(Deno.readTextFileSync(`/proc/${pid}/fdinfo/${name}`))) found.add(slot);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // closed meanwhile
    }
  }
  return new Map([...slots].map(([key, found]) => [key, [...found].sort().join("")]));
}

/** The same, in short: `4 ab`, `3 b, 1 ab`. */
export function slotsText(pids: readonly number[], lockspace: string): string {
  const counts = new Map<string, number>();
  const slots = new Map<string, Set<string>>();
  for (const pid of pids) {
    for (const [key, found] of slotsOf(pid, lockspace)) {
      slots.set(key, new Set([...slots.get(key) ?? [], ...found]));
    }
  }
  for (const found of slots.values()) {
    const text = [...found].sort().join("") || "none";
    counts.set(text, (counts.get(text) ?? 0) + 1);
  }
  return [...counts].sort().map(([text, count]) => `${count} ${text}`).join(", ");
}

function filesBelow(directory: string): string[] {
  try {
    return Array.from(Deno.readDirSync(directory)).flatMap(({ name, isDirectory }) =>
      isDirectory ? filesBelow(`${directory}/${name}`) : [`${directory}/${name}`]
    );
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
