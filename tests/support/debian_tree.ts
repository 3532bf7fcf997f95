import { capture, tail } from "../../scripts/capture.ts";
import { ensureCommands } from "../../scripts/system_packages.ts";

/** What is in the tree besides Debian's smallest system. */
const PACKAGES = [
  "curl",
  "dbus",
  "iproute2",
  "procps",
  "systemd",
  "systemd-sysv",
  "util-linux",
];
const SUITE = "bookworm";
/** To be raised when what is done to a tree after debootstrap changes. */
const FORM = 1;

/** What is in a tree: nothing but what every host needs, or a ssh server, its client and QEMU as well. */
export type TreeContents = "plain" | "with-ssh-and-qemu";

const FURTHER: Record<TreeContents, readonly string[]> = {
  "plain": [],
  "with-ssh-and-qemu": ["openssh-server", "openssh-client", "qemu-system-x86"],
};

/**
 * A Debian system with systemd in a folder, which nobody may change: hosts run on overlays of it. The first to ask
 * for it makes it (one to three minutes, once per machine); others wait meanwhile, in other processes too.
 * @throws when it cannot be made, with what is missing
 */
export async function debianTree(contents: TreeContents = "plain"): Promise<string> {
  if (Deno.uid() !== 0) {
    throw new Error("hosts with systemd need root: they are containers of systemd-nspawn");
  }
  await ensureCommands(["debootstrap", "systemd-nspawn", "ip", "unshare", "nsenter", "setsid"]);
  const cache = `${cacheDirectory()}/lockvisor-tests`;
  await Deno.mkdir(cache, { recursive: true });
  const packages = [...PACKAGES, ...FURTHER[contents]];
  const tree = `${cache}/debian-${await contentKey(packages)}`;
  using lock = await Deno.open(`${tree}.lock`, { write: true, create: true });
  await lock.lock(true);
  if (!await isDirectory(tree)) await makeTree(tree, packages);
  return tree;
}

/** The caches of this user (XDG Base Directory Specification). */
function cacheDirectory(): string {
  const given = Deno.env.get("XDG_CACHE_HOME");
  if (given?.startsWith("/")) return given;
  const home = Deno.env.get("HOME");
  return home?.startsWith("/") ? `${home}/.cache` : "/var/tmp";
}

/** Other contents are another tree. */
async function contentKey(packages: readonly string[]): Promise<string> {
  const text = new TextEncoder().encode(JSON.stringify([FORM, SUITE, packages]));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", text)).toHex().slice(0, 12);
}

async function makeTree(tree: string, packages: readonly string[]): Promise<void> {
  const beside = `${tree}.partial`; // of one who was killed; nobody works on it, for we have the lock
  await removeTree(beside);
  // Mounts that debootstrap makes in it end with the mount namespace, however debootstrap ends.
  const made = await capture("unshare", [
    "--mount",
    "--propagation=private",
    "debootstrap",
    "--variant=minbase",
    `--include=${packages.join(",")}`,
    SUITE,
    beside,
  ], { env: { LC_ALL: "C" } });
  if (!made.success) {
    await removeTree(beside);
    throw new Error(`debootstrap made no Debian tree:\n${tail(made.stderr || made.stdout)}`);
  }
  // With the tree's id all hosts would be one. An empty file takes the host's own, machine-id(5), if D-Bus has none.
  await Deno.writeTextFile(`${beside}/etc/machine-id`, "");
  await Deno.remove(`${beside}/var/lib/dbus/machine-id`);
  await Deno.remove(`${beside}/var/cache/apt/archives`, { recursive: true });
  await Deno.rename(beside, tree);
}

async function removeTree(path: string): Promise<void> {
  if (await isDirectory(path)) await Deno.remove(path, { recursive: true });
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
