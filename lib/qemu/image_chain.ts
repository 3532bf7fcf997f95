import type { BlockNode } from "./block_graph.ts";
import { BlockOptions } from "./block_options.ts";
import { schemeOf } from "./block_filename.ts";
import { LockvisorError } from "../errors.ts";
import type { NamedFiles, StatedImage } from "../image/image_reader.ts";
import { misunderstood } from "./misunderstood.ts";

/** Images that lie on each other deeper than this are a mistake. */
export const MAXIMUM_CHAIN_DEPTH = 200;

/** Reads headers of images. @throws {LockvisorError} for one that cannot be read or is damaged */
export interface ImageReader {
  read(image: StatedImage): Promise<NamedFiles>;
  /** Called with one line for the administrator. */
  warn(line: string): void;
}

/** The images above the one that is read. */
export type ChainPlace = readonly { identity: string; path: string }[];

/** Files of an image as nodes to open. */
export interface ChainedFiles {
  backing: { filename: string; format: string | undefined; origin: string; chain: ChainPlace } | undefined;
  data: { filename: string | undefined; origin: string; options: BlockOptions }[];
}

/**
 * The other files that QEMU opens for an image of stated format.
 * @param explicit which of them the command line states by itself, so that the header does not count
 * @throws {LockvisorError} `data` for a chain that comes back to itself or is too long
 */
export async function chainedFiles(
  images: ImageReader,
  node: BlockNode,
  by: "qcow2" | "qemu-img",
  { chain = [], explicit }: {
    chain: ChainPlace | undefined;
    explicit: { backing: boolean; data: boolean };
  },
): Promise<ChainedFiles | undefined> {
  const format = node.driver!.name;
  const place = placeOf(node);
  if (place === undefined) {
    if (!explicit.backing) {
      images.warn(
        `${node.origin}: the header of a ${format} image that is not in a file of this host is not read: if it has a backing file, name that with --disk …,access=readonly`,
      );
    }
    return undefined;
  }
  if (chain.length >= MAXIMUM_CHAIN_DEPTH) {
    throw new LockvisorError(
      "data",
      `disk ${chain[0]!.path}: its backing files lie on each other more than ${MAXIMUM_CHAIN_DEPTH} deep`,
    );
  }
  const files = await images.read({ path: place.path, offset: place.offset, format, by });
  const seen = chain.findIndex(({ identity }) => identity === files.identity);
  if (seen >= 0) {
    throw new LockvisorError(
      "data",
      `disk ${
        chain[0]!.path
      }: its backing files come back to ${place.path}, so that QEMU would never end; set another one with qemu-img rebase -u`,
    );
  }
  const here: ChainPlace = [...chain, { identity: files.identity, path: place.path }];
  const { backing } = files;
  return {
    backing: backing === undefined || explicit.backing ? undefined : {
      filename: fullBackingName(backing.name, place.written),
      format: backing.format,
      origin: `backing file of ${place.path}`,
      chain: here,
    },
    data: explicit.data ? [] : files.data.map((name) => dataFile(name, place.path)),
  };
}

/** A data file's name is meant from QEMU's directory, not from the image's; and it is a path, whatever it looks like. */
function dataFile(name: string, image: string): ChainedFiles["data"][number] {
  const origin = `data file of ${image}`;
  if (schemeOf(name) !== undefined) {
    throw misunderstood(origin, `QEMU's versions do not agree on what "${name}" is`);
  }
  return { filename: undefined, origin, options: new BlockOptions([["driver", "file"], ["filename", name]]) };
}

/** `bdrv_get_full_backing_filename`: a relative name starts where the image lies, by its name as it is written. */
function fullBackingName(name: string, image: string): string {
  if (schemeOf(name) !== undefined || name.startsWith("/")) return name;
  const folder = image.slice(0, image.lastIndexOf("/") + 1);
  // A path that looks like a scheme is none here: QEMU has the image's protocol in front by then.
  return `${folder}${name}`;
}

/** The file of this host that holds an image's header. */
function placeOf(node: BlockNode): { path: string; written: string; offset: number } | undefined {
  const below = node.children.find(({ use }) => use === "image")?.node;
  if (below === undefined) return undefined;
  if (below.leaf?.kind === "path") {
    return { path: below.leaf.path, written: below.leaf.written, offset: node.offset };
  }
  // Formats change what is at an offset; so does every layer that has more than one image below it.
  if (below.driver?.is.kind !== "filter" || below.driver.is.list !== undefined) return undefined;
  const place = placeOf(below);
  return place === undefined ? undefined : { ...place, offset: place.offset + node.offset };
}
