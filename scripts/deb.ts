import { join, relative } from "node:path";
import { VERSION } from "../lib/version.ts";
import { capture, tail } from "./capture.ts";
import { cleanupStack, temporaryFolder } from "./cleanup.ts";
import { compileLockvisor } from "./compile.ts";
import { Failure, runScript, UNAVAILABLE } from "./failure.ts";
import { writeManualPage } from "./man.ts";
import { DIST, ROOT } from "./project.ts";
import { ensureCommands } from "./system_packages.ts";

/** What a package is made of. */
export interface PackageSource {
  version: string;
  /** The folder with `lockvisor` and `lockvisor.8`. */
  dist: string;
  /** The folder that the package comes into. */
  output: string;
  /** The time of all that is in it, in seconds since 1970: the same sources make the same package. */
  epoch: number;
}

/** Debian's names of the machines that Deno compiles for. */
const ARCHITECTURES = { x86_64: "amd64", aarch64: "arm64" } as const;

/** What belongs to whoever runs the host once it is installed: dpkg never overwrites an edited one. */
const CONFFILES = ["/etc/lockvisor/lockvisor.toml"];

/** Builds a Debian package of what scripts/install.sh installs, and returns its path. */
export async function buildPackage({ version, dist, output, epoch }: PackageSource): Promise<string> {
  const architecture = ARCHITECTURES[Deno.build.arch];
  using stack = cleanupStack();
  const scratch = temporaryFolder(stack, { prefix: "lockvisor-deb-" });
  const root = join(scratch, "root");
  makeFolder(root);
  await must(join(ROOT, "scripts/install.sh"), [], {
    DESTDIR: root,
    PREFIX: "/usr",
    DIST: dist,
    ZSH_COMPLETIONS: "/usr/share/zsh/vendor-completions",
  });
  // What Debian's policy wants beside that (12.1, 12.5).
  await must("gzip", ["-9n", join(root, "usr/share/man/man8/lockvisor.8")]);
  const copyright = join(root, "usr/share/doc/lockvisor/copyright");
  Deno.copyFileSync(join(ROOT, "LICENSE"), copyright);
  Deno.chmodSync(copyright, 0o644); // in a working tree it has what the umask of its owner left

  const files = filesBelow(root);
  const bytes = files.reduce((sum, path) => sum + Deno.lstatSync(path).size, 0);
  const sums = await must("md5sum", files.map((path) => relative(root, path)), {}, root);
  const control = join(root, "DEBIAN");
  makeFolder(control);
  const write = (name: string, text: string, mode = 0o644) => {
    Deno.writeTextFileSync(join(control, name), text);
    Deno.chmodSync(join(control, name), mode);
  };
  write("control", controlText({ version, architecture, kilobytes: Math.ceil(bytes / 1024) }));
  write("conffiles", CONFFILES.map((path) => `${path}\n`).join(""));
  write("md5sums", sums);
  for (const name of ["postinst", "prerm", "postrm"]) {
    write(name, Deno.readTextFileSync(join(ROOT, "scripts/deb", name)), 0o755);
  }

  const name = `lockvisor_${version}_${architecture}.deb`;
  const made = join(scratch, name);
  // dpkg-deb takes the time of the archive from the environment, but lowers files' times only. zstd makes a package
  // of 35 MB in half a second, xz one of 29 MB in nine; dpkg unpacks it from Debian 12 on.
  for (const path of [root, ...everythingBelow(root)]) Deno.utimeSync(path, epoch, epoch);
  await must("dpkg-deb", ["--root-owner-group", "-Zzstd", "--build", root, made], {
    SOURCE_DATE_EPOCH: String(epoch),
  });
  Deno.mkdirSync(output, { recursive: true });
  const path = join(output, name);
  const beside = `${path}.${Deno.pid}.new`;
  Deno.copyFileSync(made, beside);
  Deno.renameSync(beside, path);
  return path;
}

function controlText(
  { version, architecture, kilobytes }: { version: string; architecture: string; kilobytes: number },
): string {
  return `Package: lockvisor
Version: ${version}
Architecture: ${architecture}
Maintainer: lockvisor maintainers <root@localhost>
Installed-Size: ${kilobytes}
Depends: libc6 (>= 2.27), libgcc-s1, passwd
Recommends: qemu-utils
Section: admin
Priority: optional
Description: lock manager for the disks of virtual machines
 While a guest runs, a QEMU process or any other command, a lock is held on
 every disk that it may write, so that no second guest, on this host or on
 another host that shares the storage, can open the same disk and corrupt it.
 .
 The kernel holds the locks, in the guest's own process: the agent may be
 stopped, upgraded or killed at any time, and no lock is lost.
`;
}

/** The time of the sources: SOURCE_DATE_EPOCH of the caller, or that of the last commit. */
async function sourceEpoch(): Promise<number> {
  const given = Deno.env.get("SOURCE_DATE_EPOCH");
  const text = given ?? (await capture("git", ["log", "-1", "--format=%ct"], { cwd: ROOT })).stdout;
  if (/^\d+\s*$/.test(text)) return Number(text);
  const reason = given === undefined ? "this is no git repository" : `it is "${given}"`;
  throw new Failure(`the time of the sources is not known (${reason}); set SOURCE_DATE_EPOCH to seconds`);
}

async function must(
  command: string,
  args: string[],
  env: Record<string, string> = {},
  cwd: string = ROOT,
): Promise<string> {
  const { success, stdout, stderr } = await capture(command, args, { env, cwd });
  if (!success) throw new Failure(`no package: ${tail(stderr).trim()}`, { status: UNAVAILABLE });
  return stdout;
}

/** A folder of the package. mkdir's mode is cut by the umask, and the package's first folder stands for the host's /. */
function makeFolder(path: string): void {
  Deno.mkdirSync(path);
  Deno.chmodSync(path, 0o755);
}

/** Files and folders below a folder, always in the same order. */
function everythingBelow(folder: string): string[] {
  const entries = [...Deno.readDirSync(folder)].sort((one, other) => one.name < other.name ? -1 : 1);
  return entries.flatMap(({ name, isDirectory }) => {
    const path = join(folder, name);
    return isDirectory ? [path, ...everythingBelow(path)] : [path];
  });
}

function filesBelow(folder: string): string[] {
  return everythingBelow(folder).filter((path) => Deno.lstatSync(path).isFile);
}

async function main(): Promise<number> {
  await ensureCommands(["dpkg-deb", "gzip"]);
  await compileLockvisor("when-stale");
  writeManualPage();
  const epoch = await sourceEpoch();
  console.log(await buildPackage({ version: VERSION, dist: DIST, output: DIST, epoch }));
  return 0;
}

if (import.meta.main) await runScript("deb", main);
