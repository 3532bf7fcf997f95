import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { capture, tail } from "./capture.ts";
import { Failure, runScript, UNAVAILABLE, USAGE } from "./failure.ts";

/** The Debian package that brings a command, for every command that tests, benchmarks, demonstration and package use. */
const PACKAGE_OF: Record<string, string> = {
  "qemu-system-x86_64": "qemu-system-x86",
  "qemu-img": "qemu-utils",
  strace: "strace",
  as: "binutils",
  ld: "binutils",
  "aarch64-linux-gnu-as": "binutils-aarch64-linux-gnu",
  "aarch64-linux-gnu-ld": "binutils-aarch64-linux-gnu",
  ip: "iproute2",
  flock: "util-linux",
  setpriv: "util-linux",
  unshare: "util-linux",
  losetup: "mount",
  mount: "mount",
  "mkfs.ext4": "e2fsprogs",
  zsh: "zsh",
  fish: "fish",
  man: "man-db",
  groff: "groff-base",
  glusterfs: "glusterfs-client",
  glusterfsd: "glusterfs-server",
  umount: "mount",
  curl: "curl",
  chromium: "chromium",
  "systemd-nspawn": "systemd-container",
  debootstrap: "debootstrap",
  nsenter: "util-linux",
  setsid: "util-linux",
  "dpkg-deb": "dpkg",
  gzip: "gzip",
  virtlockd: "libvirt-daemon",
};

/** Debian gives these folders only to root's PATH, but everybody may run what is in them. */
const SYSTEM_FOLDERS = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/**
 * Sees to it that commands are there: installs the packages of those that are missing where that is allowed
 * (root, on a system with apt-get), and fails with their names otherwise. Nothing that needs them is skipped.
 */
export async function ensureCommands(commands: readonly string[]): Promise<void> {
  const missing = commands.filter((command) => !isInstalled(command));
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map(packageOf))].sort();
  if (Deno.uid() !== 0 || !isInstalled("apt-get")) {
    throw new Failure(howToInstall(missing, packages), unavailable);
  }

  console.log(`installing with apt-get: ${packages.join(" ")}`);
  const trouble = await install(packages);
  if (trouble !== "") {
    throw new Failure(`apt-get cannot install ${packages.join(" ")}:\n${trouble}`, unavailable);
  }
  const stillMissing = missing.filter((command) => !isInstalled(command));
  if (stillMissing.length > 0) throw new Failure(howToInstall(stillMissing, packages), unavailable);
}

const unavailable = { status: UNAVAILABLE };

/** Installs packages and returns what went wrong, or "". A package list that cannot be updated may still do. */
async function install(packages: string[]): Promise<string> {
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  // Another apt-get may be at work, as often on a machine that has just started: wait for it.
  const patience = ["-o", "DPkg::Lock::Timeout=120"];
  const update = await capture("apt-get", ["update", ...patience], { env });
  const args = ["install", "--yes", "--no-install-recommends", ...patience, ...packages];
  const result = await capture("apt-get", args, { env });
  if (result.success) return "";
  return [update.success ? "" : tail(update.stderr), tail(result.stderr)].filter((text) => text !== "").join(
    "\n",
  );
}

function packageOf(command: string): string {
  const name = PACKAGE_OF[command];
  if (name !== undefined) return name;
  throw new Failure(`no package is known for the command "${command}"; add it to PACKAGE_OF`, {
    status: USAGE,
  });
}

function howToInstall(missing: string[], packages: string[]): string {
  return `missing: ${missing.join(", ")}. Install them as root, on Debian with ` +
    `"apt-get install --no-install-recommends ${packages.join(" ")}", then try again`;
}

/** The PATH for what runs these commands: the caller's own, then Debian's folders for the system's commands. */
export function searchPath(): string {
  return [...(Deno.env.get("PATH") ?? "").split(delimiter), ...SYSTEM_FOLDERS].filter((folder) =>
    folder !== ""
  )
    .join(delimiter);
}

function isInstalled(command: string): boolean {
  return searchPath().split(delimiter).some((folder) => isExecutable(join(folder, command)));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

if (import.meta.main) {
  await runScript("system_packages", async () => {
    await ensureCommands(Deno.args);
    return 0;
  });
}
