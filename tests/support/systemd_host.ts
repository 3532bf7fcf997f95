import { mountedCgroups, processesIn } from "./cgroups.ts";
import { until } from "./until.ts";
import type { Finished } from "./world.ts";

/** What a host is made of. */
export interface HostParts {
  /** Its own name, and that of its cgroup, its network namespace and its container on this machine. */
  hostname: string;
  name: string;
  /** The Debian tree that it runs on an overlay of; what it writes ends with it. */
  tree: string;
  /** Its console goes into a file here. */
  folder: string;
  /** Folders of this machine and where the host finds them. */
  binds: { from: string; to: string; access: "writable" | "readonly" }[];
}

/** Units of Debian that a test has no use for. */
const MASKED = ["console-getty.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer"];

/** The first process of a host, which is systemd, and how it is entered. */
interface Running {
  container: Deno.ChildProcess;
  leader: number;
}

/** A host with systemd, in a container: its own processes, mounts, network and cgroups, under this machine's kernel. */
export class SystemdHost {
  readonly #parts: HostParts;
  readonly #machineId = crypto.randomUUID();
  #running: Running | undefined;

  constructor(parts: HostParts) {
    this.#parts = parts;
  }

  /** Starts the host and waits until systemd has reached its target; again after a crash, as the same host. */
  async boot(): Promise<void> {
    const container = this.#startContainer();
    let ended = false;
    container.status.then(() => ended = true);
    let leader: number | undefined;
    try {
      await until(`host ${this.#parts.hostname} is up`, async () => {
        if (ended) return true;
        await new Promise((resolve) => setTimeout(resolve, 20));
        leader = this.#findLeader();
        return leader !== undefined && await isUp(leader);
      }, 60_000);
      if (ended || leader === undefined) {
        throw new Error(`host ${this.#parts.hostname} ended while it started`);
      }
    } catch (error) {
      throw new Error(`${(error as Error).message}; its console:\n${await this.#console()}`);
    }
    this.#running = { container, leader };
  }

  /** Runs a command on the host to its end, as its root. */
  async run(command: readonly [string, ...string[]], { stdin = "" } = {}): Promise<Finished> {
    const child = new Deno.Command("nsenter", {
      args: [...entering(this.#leader), "--", ...command],
      clearEnv: true,
      env: ENVIRONMENT,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const [{ code, signal, stdout, stderr }] = await Promise.all([
      child.output(),
      new Blob([stdin]).stream().pipeTo(child.stdin).catch(() => {}), // a command need not read it
    ]);
    const decoder = new TextDecoder();
    return { code, signal, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  }

  /** Runs a command that must succeed; what it printed. */
  async must(command: readonly [string, ...string[]], options: { stdin?: string } = {}): Promise<string> {
    const { code, signal, stdout, stderr } = await this.run(command, options);
    if (code === 0) return stdout;
    const text = `on ${this.#parts.hostname}: ${command.join(" ")}: ${signal ?? `exit status ${code}`}`;
    throw new Error(`${text}\n${stdout}${stderr}`);
  }

  /** Writes a file on the host, and the folders above it. */
  async writeFile(path: string, text: string, mode = "0644"): Promise<void> {
    await this.must(["install", "-D", "-m", mode, "/dev/stdin", path], { stdin: text });
  }

  /** The host stops in the middle of everything: all its processes are killed at once, what it wrote is gone. */
  async crash(): Promise<void> {
    Deno.kill(this.#leader, "SIGKILL"); // the kernel ends a pid namespace with its first process
    await this.#gone();
  }

  /** Shuts the host down in order. */
  async powerOff(): Promise<void> {
    await this.must(["systemctl", "--no-block", "poweroff"]);
    await this.#gone();
  }

  get #leader(): number {
    if (this.#running === undefined) throw new Error(`host ${this.#parts.hostname} does not run`);
    return this.#running.leader;
  }

  async #gone(): Promise<void> {
    await this.#running?.container.status;
    this.#running = undefined;
  }

  #startContainer(): Deno.ChildProcess {
    const { name, hostname, tree, folder, binds } = this.#parts;
    // Both hosts would get into one group otherwise, and each of them takes its own for the root.
    const groups = mountedCgroups().all.map((hierarchy) => `${hierarchy}/${name}`);
    for (const group of groups) Deno.mkdirSync(group, { recursive: true });
    const join = groups.map((group) => `echo $$ >'${group}/cgroup.procs' && `).join("");
    const nspawn = [
      "--quiet",
      `--machine=${name}`,
      `--directory=${tree}`,
      "--volatile=overlay",
      "--register=no",
      "--keep-unit",
      `--network-namespace-path=/run/netns/${name}`,
      `--uuid=${this.#machineId}`,
      "--console=read-only",
      "--system-call-filter=pidfd_getfd", // not among what containers may call, but what a host may

      ...binds.map(({ from, to, access }) => `--bind${access === "readonly" ? "-ro" : ""}=${from}:${to}`),
      ...["/dev/kvm", "/dev/fuse"].filter(isPresent).map((device) => `--bind=${device}`),
      "--boot",
      "systemd.unit=multi-user.target",
      `systemd.hostname=${hostname}`,
      ...MASKED.map((unit) => `systemd.mask=${unit}`),
    ];
    const script = `${join}exec systemd-nspawn "$@" >'${folder}/${hostname}.log' 2>&1`;
    return new Deno.Command("setsid", {
      args: ["sh", "-c", script, "nspawn", ...nspawn],
      env: { SYSTEMD_NSPAWN_LOCK: "0" }, // many hosts on one tree: each writes to its own overlay
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  /** The process that is the first of a pid namespace below ours; proc_pid_status(5), NSpid. */
  #findLeader(): number | undefined {
    return processesIn(`${mountedCgroups().unified}/${this.#parts.name}`).find((pid) => {
      try {
        return /^NSpid:\t\d+\t1$/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
      } catch {
        return false; // it has ended
      }
    });
  }

  async #console(): Promise<string> {
    const { folder, hostname } = this.#parts;
    return (await Deno.readTextFile(`${folder}/${hostname}.log`)).split("\n").slice(-12).join("\n");
  }
}

/** What root has on a Debian host. */
const ENVIRONMENT = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  LC_ALL: "C.UTF-8",
};

/** Everything of the host but its users, who are this machine's. */
function entering(leader: number): string[] {
  return [`--target=${leader}`, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"];
}

/** systemctl(1), is-system-running: a unit of Debian that failed in a container is no concern of ours. */
async function isUp(leader: number): Promise<boolean> {
  const { stdout } = await new Deno.Command("nsenter", {
    args: [...entering(leader), "--", "systemctl", "is-system-running", "--wait"],
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).output();
  return ["running", "degraded"].includes(new TextDecoder().decode(stdout).trim());
}

function isPresent(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
