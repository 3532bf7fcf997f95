import type { DriverDefinition } from "../driver/contract.ts";
import { fileError, LockvisorError } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import { guarded } from "./driver_guard.ts";
import type { FoundDriver } from "./registry.ts";

/**
 * Loads a driver from a module of its own. The file, its folder and all folders above must be safe from others, links
 * followed. What the module imports is its own business.
 * @throws {LockvisorError} `unavailable` when it is not there, cannot be loaded or is no driver, `permission` when
 * somebody else owns it or may write it
 */
export async function driverInFile(path: string, effectiveUid: number): Promise<FoundDriver> {
  const file = canonical(absolutePath(path));
  if (!Deno.statSync(file).isFile) throw new LockvisorError("unavailable", `plugin ${path} is not a file`);
  for (const [index, place] of placesTo(file).entries()) {
    const kind = index < 2 ? "own" : "above";
    const fault = ownershipFault(Deno.statSync(place), kind, effectiveUid);
    if (fault !== undefined) throw new LockvisorError("permission", `plugin ${path}: ${place} ${fault}`);
  }
  const definition = driverDefinition(path, await importModule(path, file));
  return { definition: guarded(path, definition), loadedAs: file };
}

/** A file, the folder that it is in, and all folders above that one. */
function placesTo(file: string): string[] {
  const parts = file.split("/");
  return parts.map((_, index) => parts.slice(0, parts.length - index).join("/") || "/");
}

/** Where a path leads, links followed, or the error that tells that it leads nowhere. */
function canonical(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new LockvisorError("unavailable", `plugin ${path}: there is no such file`, { cause: error });
    }
    throw fileError(`find the plugin ${path}`, error);
  }
}

/** Has only files and folders in it that may be made and renamed by their owners; inode(7), S_ISVTX. */
const STICKY = 0o1000;

/**
 * Why a place on the way to code that we are to run is not to be trusted; undefined for one that is.
 * @param kind `own`: the file or the folder it is in. In a folder `above` a sticky bit keeps others from exchanging
 * what is not theirs
 */
export function ownershipFault(
  { uid, mode }: Pick<Deno.FileInfo, "uid" | "mode">,
  kind: "own" | "above",
  effectiveUid: number,
): string | undefined {
  if (uid !== 0 && uid !== effectiveUid) {
    return `belongs to uid ${uid}, neither to root nor to uid ${effectiveUid}, who runs this`;
  }
  const permissions = (mode ?? 0o777) & 0o7777;
  if ((permissions & 0o022) === 0 || (kind === "above" && (permissions & STICKY) !== 0)) return undefined;
  return `may be written by others (mode ${permissions.toString(8).padStart(4, "0")}); chmod go-w it`;
}

async function importModule(path: string, file: string): Promise<unknown> {
  try {
    return await import(new URL(`file://${encodeURI(file).replaceAll(/[?#]/g, encodeURIComponent)}`).href);
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    const hint = file.endsWith(".ts") ? "; the compiled program reads JavaScript modules only" : "";
    throw new LockvisorError("unavailable", `plugin ${path} cannot be loaded: ${reason}${hint}`, {
      cause: error,
    });
  }
}

/** The definition that a module exports, checked. @throws {LockvisorError} `unavailable`, naming what is wrong */
export function driverDefinition(path: string, module: unknown): DriverDefinition {
  const definition = (module as { default?: unknown }).default;
  const wrong = definitionFault(definition);
  if (wrong === undefined) return definition as DriverDefinition;
  throw new LockvisorError("unavailable", `plugin ${path} is no driver: ${wrong}; see docs/plugins.md`);
}

function definitionFault(definition: unknown): string | undefined {
  if (!isObject(definition)) return "it has no default export that is an object";
  const { name, capabilities, create } = definition;
  if (typeof name !== "string" || !/^[a-z][a-z0-9-]{0,63}$/.test(name)) {
    return `its name is not 1 to 64 small letters, digits and "-"`;
  }
  if (typeof create !== "function") return `"create" is not a function`;
  if (!isObject(capabilities)) return `"capabilities" is not an object`;
  const { resources } = capabilities;
  if (!Array.isArray(resources) || resources.some((type) => type !== "disk" && type !== "lease")) {
    return `capability "resources" is not a list of "disk" and "lease"`;
  }
  for (const ability of ["hotplug", "pause", "migration"]) {
    if (typeof capabilities[ability] !== "boolean") return `capability "${ability}" is not true or false`;
  }
  if (capabilities.hotplug === true && resources.length === 0) {
    return `it declares "hotplug" and no resources`;
  }
  return undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
