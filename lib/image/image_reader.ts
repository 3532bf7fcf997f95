import { LockvisorError } from "../errors.ts";
import { withImage } from "./image_file.ts";
import { readQcow2Header } from "./qcow2_header.ts";

/** An image of stated format. */
export interface StatedImage {
  path: string;
  /** Where its header begins, in bytes. */
  offset: number;
  format: string;
  /** Who reads it: we ourselves, or `qemu-img`. */
  by: "qcow2" | "qemu-img";
}

/** The other files of an image as its header names them, each name as it is written there. */
export interface NamedFiles {
  identity: string;
  backing: { name: string; format: string | undefined } | undefined;
  data: string[];
}

/**
 * Reads which other files an image has.
 * @throws {LockvisorError} `data` for an image that is damaged, missing, or not of that format; `permission`
 */
export async function readImageFiles({ path, offset, format, by }: StatedImage): Promise<NamedFiles> {
  if (by === "qcow2") {
    return withImage(path, ({ identity, read }) => {
      const header = readQcow2Header(path, (at, length) => read(offset + at, length));
      return {
        identity: `${identity} ${offset}`,
        backing: named(header.backingFile, header.backingFormat),
        data: header.dataFile === undefined ? [] : [header.dataFile],
      };
    });
  }
  if (offset !== 0) {
    throw new LockvisorError(
      "data",
      `disk ${path}: a ${format} image at an offset cannot be read; state every disk with --disk and add --no-auto`,
    );
  }
  const identity = withImage(path, (image) => image.identity);
  const { qemuImgInfo } = await import("./qemu_img.ts");
  const { backingFile, backingFormat, extents } = await qemuImgInfo(path, format);
  return {
    identity: `${identity} ${offset}`,
    backing: named(backingFile, backingFormat),
    data: extents.filter((extent) => extent !== path),
  };
}

function named(name: string | undefined, format: string | undefined): NamedFiles["backing"] {
  return name === undefined ? undefined : { name, format };
}
