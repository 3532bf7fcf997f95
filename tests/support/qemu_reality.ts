import { QmpClient } from "../../lib/qmp/client.ts";
import { until } from "./until.ts";

/** What a real QEMU has open for its command line. */
export interface QemuReality {
  /** Files and devices of the block layer by their resolved paths. */
  files: Map<string, {
    /** Whether QEMU says so of every node that is this file. */
    readOnly: boolean;
    /** Whether one of its descriptors is open for writing. */
    written: boolean;
  }>;
  /** Names of nodes that are no files. */
  networks: string[];
}

interface BlockNodeInfo {
  drv: string;
  file: string;
  ro: boolean;
}

const MACHINE = "-S -accel tcg -nodefaults -no-user-config -display none".split(" ");
const PATH_DRIVERS = ["file", "host_device", "host_cdrom"];

/** Starts a real QEMU that does not run its guest, asks it for its nodes, and ends it. @throws when it does not start */
export async function askQemu(args: readonly string[], directory: string): Promise<QemuReality> {
  const socket = `${directory}/reality.qmp`;
  const child = new Deno.Command("qemu-system-x86_64", {
    args: [...MACHINE, ...args, "-qmp", `unix:${socket},server=on,wait=off`],
    cwd: directory,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let ended: Deno.CommandStatus | undefined;
  child.status.then((status) => ended = status);
  const said = new Response(child.stderr).text();
  try {
    let client: QmpClient | undefined;
    await until("QEMU's monitor answers", async () => {
      if (ended !== undefined) throw new Error(`QEMU does not start: ${await said}`);
      try {
        client = await QmpClient.connect(socket);
        return true;
      } catch {
        return false;
      }
    });
    await using monitor = client!;
    const nodes = await monitor.execute("query-named-block-nodes") as BlockNodeInfo[];
    return realityOf(nodes, child.pid, directory);
  } finally {
    try {
      child.kill("SIGKILL");
    } catch { /* it has ended */ }
    await child.status;
    await said;
    try {
      Deno.removeSync(socket);
    } catch { /* it was not made */ }
  }
}

function realityOf(nodes: readonly BlockNodeInfo[], pid: number, directory: string): QemuReality {
  const written = writtenFiles(pid);
  const files: QemuReality["files"] = new Map();
  for (const { file, ro } of nodes.filter(({ drv }) => PATH_DRIVERS.includes(drv))) {
    let path;
    try {
      path = Deno.realPathSync(file.startsWith("/") ? file : `${directory}/${file}`);
    } catch {
      continue; // the temporary image of a snapshot, which has no name any more
    }
    const readOnly = (files.get(path)?.readOnly ?? true) && ro;
    files.set(path, { readOnly, written: written.has(path) });
  }
  const others = nodes.filter(({ drv }) => ["nbd", "rbd", "nfs", "iscsi", "ssh"].includes(drv));
  return { files, networks: [...new Set(others.map(({ file }) => file))] };
}

const WRITING = 0o3;

/** The files that a process has open. */
export function openFiles(pid: number): Set<string> {
  return new Set(descriptors(pid).map(({ path }) => path));
}

/** The files that a process has open for writing. */
export function writtenFiles(pid: number): Set<string> {
  return new Set(descriptors(pid).filter(({ flags }) => (flags & WRITING) !== 0).map(({ path }) => path));
}

function descriptors(pid: number): { path: string; flags: number }[] {
  return Array.from(Deno.readDirSync(`/proc/${pid}/fd`)).flatMap(({ name }) => {
    try {
      const path = Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
      const flags = /^flags:\s*([0-7]+)/m.exec(Deno.readTextFileSync(`/proc/${pid}/fdinfo/${name}`))?.[1];
      return [{ path, flags: parseInt(flags ?? "0", 8) }];
    } catch {
      return []; // closed meanwhile
    }
  });
}
