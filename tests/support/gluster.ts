import { until } from "./until.ts";

/** How often another port is tried: somebody may take a free one before the brick listens on it. */
const MOST_PORTS = 5;

/** What makes one volume differ from another. */
export interface VolumeOptions {
  /** The client's option `strict-locks`: whether a descriptor whose lock a restarted brick forgot fails from then on. */
  strictLocks?: "on" | "off";
}

/** A GlusterFS volume of one brick on the loopback interface, with its mounts; all of it ends with the test. */
export class GlusterVolume implements AsyncDisposable {
  readonly #directory: string;
  readonly #options: VolumeOptions;
  readonly #port: number;
  readonly #mounts: GlusterMount[] = [];
  #brick: Deno.ChildProcess;

  private constructor(directory: string, options: VolumeOptions, port: number, brick: Deno.ChildProcess) {
    this.#directory = directory;
    this.#options = options;
    this.#port = port;
    this.#brick = brick;
  }

  /** Starts a brick on a free port and waits until it listens there. */
  static async create(options: VolumeOptions = {}): Promise<GlusterVolume> {
    const directory = await Deno.realPath(await Deno.makeTempDir({ prefix: "lockvisor-gluster-" }));
    await Deno.mkdir(`${directory}/brick`);
    for (let attempt = 0; attempt < MOST_PORTS; attempt++) {
      const port = freePort();
      await Deno.writeTextFile(`${directory}/server.vol`, serverVolume(`${directory}/brick`, port));
      const brick = startBrick(directory);
      if (await listens(brick, port)) return new GlusterVolume(directory, options, port, brick);
      await end(brick);
    }
    await Deno.remove(directory, { recursive: true });
    throw new Error(`no brick came up on ${MOST_PORTS} ports`);
  }

  /**
   * Mounts the volume, through a client process of its own, as a host of its own would.
   * @param source.id what stands behind the colon in the mount's source, `glusterfs:ID`; without it `(null)`
   */
  async mount(name: string, source: { id?: string } = {}): Promise<GlusterMount> {
    const volumeFile = `${this.#directory}/${name}.vol`;
    await Deno.writeTextFile(volumeFile, clientVolume(this.#port, this.#options.strictLocks ?? "off"));
    const point = `${this.#directory}/${name}`;
    await Deno.mkdir(point, { recursive: true });
    const id = source.id === undefined ? [] : [`--volfile-id=${source.id}`];
    const client = start("glusterfs", [
      "-N",
      ...["-f", volumeFile, "-l", `${point}.log`],
      ...["--attribute-timeout=0", "--entry-timeout=0", ...id, point],
    ]);
    const mount = new GlusterMount(point, client);
    this.#mounts.push(mount);
    await until(`${point} is mounted`, () => isMounted(point) && isAnswering(point));
    return mount;
  }

  /** Ends the brick and starts it again on the same port: it has forgotten every lock then. */
  async restartBrick(): Promise<void> {
    await end(this.#brick);
    await until("the brick is back", async () => {
      this.#brick = startBrick(this.#directory);
      const isBack = await listens(this.#brick, this.#port);
      if (!isBack) await end(this.#brick);
      return isBack;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const mount of this.#mounts) await mount.unmount();
    await end(this.#brick);
    await Deno.remove(this.#directory, { recursive: true });
  }
}

/** One mount of a volume with its client process: what a host has of it. */
export class GlusterMount {
  readonly path: string;
  readonly #client: Deno.ChildProcess;

  constructor(path: string, client: Deno.ChildProcess) {
    this.path = path;
    this.#client = client;
  }

  /** What the kernel shows as the mount's source. */
  get source(): string {
    const line = mountLines().find((words) => words[4] === this.path);
    return line?.[line.indexOf("-") + 2] ?? "";
  }

  /** Kills the client process: the mount stays and answers nothing any more. */
  async killClient(): Promise<void> {
    await end(this.#client);
  }

  /** Stops the client process: for the brick its host goes on living and keeps its locks. */
  freezeClient(): void {
    this.#client.kill("SIGSTOP");
  }

  thawClient(): void {
    try {
      this.#client.kill("SIGCONT");
    } catch { /* it has ended */ }
  }

  /** Takes the mount away, whatever is open on it, and ends its client. */
  async unmount(): Promise<void> {
    if (isMounted(this.path)) {
      await new Deno.Command("umount", { args: ["-l", this.path], stdout: "null", stderr: "null" }).output();
    }
    await end(this.#client);
  }
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

function startBrick(directory: string): Deno.ChildProcess {
  return start("glusterfsd", ["-N", "-f", `${directory}/server.vol`, "-l", `${directory}/brick.log`]);
}

function start(program: string, args: string[]): Deno.ChildProcess {
  return new Deno.Command(program, { args, stdin: "null", stdout: "null", stderr: "null" }).spawn();
}

/** Ends a process that was started here, even a stopped one. */
async function end(child: Deno.ChildProcess): Promise<void> {
  try {
    child.kill("SIGKILL");
  } catch { /* it has ended */ }
  await child.status;
}

/** Whether the brick, and nobody else, comes to listen on the port. */
async function listens(brick: Deno.ChildProcess, port: number): Promise<boolean> {
  let ended = false;
  brick.status.then(() => ended = true);
  await until(`the brick listens on ${port}`, () => ended || listeningInode(port, brick.pid) !== undefined);
  return !ended;
}

/** The socket on which a process listens on a port of 127.0.0.1; proc_net(5), 0A is TCP_LISTEN. */
function listeningInode(port: number, pid: number): string | undefined {
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const sockets = Deno.readTextFileSync("/proc/net/tcp").split("\n").map((line) => line.trim().split(/\s+/))
    .filter((words) => words[1] === local && words[3] === "0A").map((words) => `socket:[${words[9]}]`);
  try {
    return Array.from(Deno.readDirSync(`/proc/${pid}/fd`), ({ name }) => {
      try {
        return Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
      } catch {
        return "";
      }
    }).find((target) => sockets.includes(target));
  } catch {
    return undefined; // it has ended
  }
}

function mountLines(): string[][] {
  return Deno.readTextFileSync("/proc/self/mountinfo").split("\n").map((line) => line.split(" "));
}

function isMounted(point: string): boolean {
  return mountLines().some((words) => words[4] === point);
}

function isAnswering(point: string): boolean {
  try {
    return Deno.statSync(point).isDirectory;
  } catch {
    return false;
  }
}

function serverVolume(directory: string, port: number): string {
  return `volume posix
  type storage/posix
  option directory ${directory}
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume brick
  type performance/io-threads
  subvolumes locks
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port ${port}
  option auth.addr.brick.allow *
  subvolumes brick
end-volume
`;
}

function clientVolume(port: number, strictLocks: "on" | "off"): string {
  return `volume client
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port ${port}
  option remote-subvolume brick
  option ping-timeout 5
  option strict-locks ${strictLocks}
end-volume
`;
}
