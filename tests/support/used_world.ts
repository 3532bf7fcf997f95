import assert from "node:assert/strict";
import { World } from "./world.ts";

/** The guest that has run there. */
export const NAMED = ["--name", "vm1"];

/** A world in which guest vm1 has run before on its disk: all files that a start makes are there. */
export class UsedWorld implements AsyncDisposable {
  readonly world: World;
  readonly disk: string;
  /** The words of `run` that were used and are to be used again. */
  readonly start: string[];
  /** The keys of the disk. */
  readonly keys: string[];

  private constructor(world: World, disk: string, keys: string[]) {
    this.world = world;
    this.disk = disk;
    this.start = [...NAMED, "--disk", disk];
    this.keys = keys;
  }

  static async create(): Promise<UsedWorld> {
    const world = await World.create();
    const disk = await world.disk("a");
    const used = await world.run(["run", ...NAMED, "--disk", disk, "--", "true"]);
    assert.equal(used.code, 0, used.stderr);
    const { resource } = JSON.parse((await world.run(["inspect", "--json", disk])).stdout);
    return new UsedWorld(world, disk, resource.identities.map(({ key }: { key: string }) => key));
  }

  /** The lock file of the disk's first key. */
  get lockFile(): string {
    return `${this.world.lockspace}/${this.keys[0]}.a`;
  }

  /** The generation file of the disk's last key: all others have been read when its turn comes. */
  get stateFile(): string {
    return `${this.world.lockspace}/${this.keys.at(-1)}.d/state.json`;
  }

  /** The notes about the disk's keys. */
  get notes(): string[] {
    return this.keys.flatMap((key) => {
      const directory = `${this.world.lockspace}/${key}.d`;
      return Array.from(Deno.readDirSync(directory), ({ name }) => `${directory}/${name}`);
    }).filter((file) => !file.endsWith("/state.json"));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.world[Symbol.asyncDispose]();
  }
}

/** Puts something else in a path's place. */
export function exchange(path: string, put: () => Promise<unknown>): Promise<unknown> {
  return Deno.remove(path, { recursive: true }).then(put);
}

/** Puts a FIFO in a path's place. */
export async function makeFifo({ world }: UsedWorld, path: string): Promise<void> {
  await Deno.remove(path, { recursive: true });
  assert.equal((await world.execute("mkfifo", [path])).code, 0);
}
