import { LockvisorError } from "../errors.ts";

/** Other files of an image as `qemu-img info` tells them. */
export interface ImageInfo {
  backingFile: string | undefined;
  backingFormat: string | undefined;
  /** Files that hold its data; the image itself may be among them. */
  extents: string[];
}

/** An image's header is read in some milliseconds; storage that hangs must not hang the start. */
const LONGEST_MS = 10_000;
const MOST_BYTES = 1 << 20;

/**
 * Asks qemu-img for the other files of one image. It gets the format, so it does not look for one, and it is not let to
 * follow the backing files, for which it would. -U: a guest may have the image.
 * @throws {LockvisorError} `data` when the image is none of that format, or qemu-img is not there
 */
export async function qemuImgInfo(path: string, format: string): Promise<ImageInfo> {
  const text = await output(path, format);
  try {
    return readInfo(JSON.parse(text));
  } catch (error) {
    throw new LockvisorError("data", `disk ${path}: what qemu-img tells about it is not understood`, {
      cause: error,
    });
  }
}

async function output(path: string, format: string): Promise<string> {
  let child;
  try {
    child = new Deno.Command("qemu-img", {
      args: ["info", "-f", format, "-U", "--output=json", path],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  } catch (error) {
    throw new LockvisorError(
      "data",
      `disk ${path}: which other files its ${format} image has cannot be told without qemu-img; install it (package qemu-utils), or state every disk with --disk and add --no-auto`,
      { cause: error },
    );
  }
  const timer = setTimeout(() => child.kill("SIGKILL"), LONGEST_MS);
  const { success, signal, stdout, stderr } = await child.output();
  clearTimeout(timer);
  if (success && stdout.length <= MOST_BYTES) return new TextDecoder().decode(stdout);
  const said = new TextDecoder().decode(stderr).trim().split("\n")[0]!;
  const reason = signal === "SIGKILL" ? `no answer within ${LONGEST_MS / 1000} s` : said;
  throw new LockvisorError("data", `disk ${path}: its ${format} image cannot be read: qemu-img: ${reason}`);
}

function readInfo(info: unknown): ImageInfo {
  const top = info as Record<string, unknown>;
  const specific = (top["format-specific"] as { data?: { extents?: { filename?: unknown }[] } } | undefined)
    ?.data;
  const text = (value: unknown) => typeof value === "string" && value !== "" ? value : undefined;
  return {
    backingFile: text(top["backing-filename"]),
    backingFormat: text(top["backing-filename-format"]),
    extents: (specific?.extents ?? []).flatMap(({ filename }) => text(filename) ?? []),
  };
}
