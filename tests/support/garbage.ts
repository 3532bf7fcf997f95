import assert from "node:assert/strict";
import type { World } from "./world.ts";

/** What `gc --json` prints. */
export interface Garbage {
  dryRun: boolean;
  removed: string[];
  inUse: number;
  problems: string[];
}

/** Tidies a world's lockspace; it must succeed. */
export async function gc(world: World, ...args: string[]): Promise<Garbage> {
  const { code, stdout, stderr } = await world.run(["gc", "--json", ...args]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

/** A guest that has run and ended. */
export async function past(world: World, name: string, disk: string, access = "exclusive"): Promise<void> {
  const words = ["run", "--name", name, "--disk", `${disk},access=${access}`, "--", "true"];
  const { code, stderr } = await world.run(words);
  assert.equal(code, 0, stderr);
}

/** The keys of a disk. */
export async function keysOf(world: World, disk: string): Promise<string[]> {
  const { resource } = JSON.parse((await world.run(["inspect", "--json", disk])).stdout);
  return resource.identities.map(({ key }: { key: string }) => key);
}

/** How often a disk was granted exclusively. */
export async function generation(world: World, disk: string): Promise<number> {
  return JSON.parse((await world.run(["inspect", "--json", disk])).stdout).generation;
}

/** Names of the notes beside all keys of a world. */
export function notes(world: World): string[] {
  return Array.from(Deno.readDirSync(world.lockspace)).filter(({ isDirectory }) => isDirectory)
    .flatMap(({ name }) => Array.from(Deno.readDirSync(`${world.lockspace}/${name}`), (file) => file.name))
    .filter((name) => name !== "state.json");
}
