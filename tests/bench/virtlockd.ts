/** An instance of libvirt's virtlockd for a comparison, and a client of its protocol. */

/** src/locking/lock_protocol.x of libvirt. */
const PROGRAM = 0xea7beef;
const VERSION = 1;
const REGISTER = 1;
const ACQUIRE_RESOURCE = 6;
const RELEASE_RESOURCE = 7;

/** src/rpc/virnetprotocol.x: the kinds of messages, and how a call went. */
const CALL = 0;
const REPLY = 1;
const OK = 0;

/** Length, program, version, procedure, type, serial, status; big-endian, as XDR is (RFC 4506). */
const HEADER_BYTES = 28;

/** The guest for which locks are taken. */
export interface LockOwner {
  name: string;
  uuid: string;
  pid: number;
}

/** One connection to virtlockd: locks for one guest. */
export class VirtlockdClient {
  readonly #connection: Deno.Conn;
  readonly #received = new Uint8Array(4096);
  #serial = 0;

  private constructor(connection: Deno.Conn) {
    this.#connection = connection;
  }

  /** Connects and tells for whom the locks will be. */
  static async connect(socket: string, owner: LockOwner): Promise<VirtlockdClient> {
    const client = new VirtlockdClient(await Deno.connect({ transport: "unix", path: socket }));
    const uuid = Uint8Array.fromHex(owner.uuid.replaceAll("-", ""));
    await client.#call(REGISTER, [uuid, text(owner.name), number(1), number(owner.pid), number(0)]);
    return client;
  }

  /** Locks a disk for the guest alone, in the file itself, as libvirt has it done by default. */
  async acquire(disk: string): Promise<void> {
    await this.#call(ACQUIRE_RESOURCE, [text(""), text(disk), number(0)]);
  }

  /** Gives a disk up. */
  async release(disk: string): Promise<void> {
    await this.#call(RELEASE_RESOURCE, [text(""), text(disk), number(0)]);
  }

  close(): void {
    this.#connection.close();
  }

  async #call(procedure: number, args: readonly Uint8Array[]): Promise<void> {
    const length = args.reduce((sum, piece) => sum + piece.length, HEADER_BYTES);
    const message = new Uint8Array(length);
    const words = [length, PROGRAM, VERSION, procedure, CALL, this.#serial++, OK];
    words.forEach((word, at) => message.set(number(word), at * 4));
    let at = HEADER_BYTES;
    for (const piece of args) {
      message.set(piece, at);
      at += piece.length;
    }
    for (let sent = 0; sent < length;) sent += await this.#connection.write(message.subarray(sent));
    await this.#reply(procedure);
  }

  async #reply(procedure: number): Promise<void> {
    const received = this.#received;
    const view = new DataView(received.buffer);
    for (let have = 0; have < 4 || have < view.getUint32(0);) {
      const read = await this.#connection.read(received.subarray(have));
      if (read === null) throw new Error("virtlockd has closed the connection");
      have += read;
    }
    if (view.getUint32(12) === procedure && view.getUint32(16) === REPLY && view.getUint32(24) === OK) return;
    const body = new TextDecoder().decode(received.subarray(HEADER_BYTES, view.getUint32(0)));
    throw new Error(`virtlockd refused procedure ${procedure}: ${body.replace(/[^ -~]+/g, " ")}`);
  }
}

function number(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

/** Its length, its bytes, and zeros up to a multiple of four. */
function text(value: string): Uint8Array {
  const encoded = new TextEncoder().encode(value);
  const bytes = new Uint8Array(4 + Math.ceil(encoded.length / 4) * 4);
  bytes.set(number(encoded.length));
  bytes.set(encoded, 4);
  return bytes;
}

/** A virtlockd of our own: whatever the host's is called or does, it is not touched. */
export class Virtlockd {
  readonly socket: string;
  readonly #process: Deno.ChildProcess;

  private constructor(process: Deno.ChildProcess, socket: string) {
    this.#process = process;
    this.socket = socket;
  }

  /**
   * Starts it in a directory of ours, which it leaves its files in. As root it would listen in /run/libvirt: so it is
   * made to see another user, to whom it belongs as a session's own.
   */
  static async start(directory: string): Promise<Virtlockd> {
    Deno.mkdirSync(directory);
    Deno.writeTextFileSync(`${directory}/virtlockd.conf`, "max_clients = 1024\n");
    const program = [
      "virtlockd",
      "--config",
      `${directory}/virtlockd.conf`,
      "--pid-file",
      `${directory}/pid`,
    ];
    const command = Deno.uid() === 0
      ? ["unshare", "--user", "--map-user=1000", "--map-group=1000", ...program]
      : program;
    const process = new Deno.Command(command[0]!, {
      args: command.slice(1),
      clearEnv: true,
      env: {
        PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
        HOME: directory,
        XDG_RUNTIME_DIR: directory,
        XDG_CONFIG_HOME: directory,
        XDG_CACHE_HOME: directory,
      },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const virtlockd = new Virtlockd(process, `${directory}/libvirt/virtlockd-sock`);
    await virtlockd.#answering();
    return virtlockd;
  }

  async #answering(): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (true) {
      try {
        (await Deno.connect({ transport: "unix", path: this.socket })).close();
        return;
      } catch (error) {
        if (performance.now() > deadline) throw error;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
  }

  /** Ends it. Whose locks it had is not asked: there must be none. */
  end(): void {
    this.#process.kill("SIGKILL");
  }
}
