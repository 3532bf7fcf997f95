import { parseField, textOf } from "./fields.ts";
import { type HttpLimits, type Refused, refused } from "./message.ts";

const CR = 13;
const LF = 10;

/** The longest line that tells a chunk's size, its extensions and its end included. */
const LONGEST_SIZE_LINE = 256;

/** A chunk's size, and extensions, which mean nothing here. RFC 9112, section 7.1. */
// deno-lint-ignore no-control-regex
const SIZE_LINE = /^([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?$/;

/** How many bytes were taken, and whether that was all, or why the rest is not wanted. */
export type ChunkedOutcome = { kind: "more" | "whole"; used: number } | Refused;

/** Puts a chunked body together. Trailer fields are checked and dropped, RFC 9112, section 7.1.2. */
export class ChunkedBody {
  readonly #limits: Readonly<HttpLimits>;
  readonly #keep: (part: Uint8Array) => void;
  #expected: "size" | "data" | "data-end" | "trailer" = "size";
  /** Bytes of this chunk that are still to come. */
  #left = 0;
  #total = 0;
  #extensionBytes = 0;
  #trailerBytes = 0;
  #trailerFields = 0;

  /** `keep` gets the parts of the body, which it has to copy. */
  constructor(limits: Readonly<HttpLimits>, keep: (part: Uint8Array) => void) {
    this.#limits = limits;
    this.#keep = keep;
  }

  /** Takes what it can of the bytes that came in so far; those left over have to be shown again, with more. */
  take(bytes: Uint8Array): ChunkedOutcome {
    let used = 0;
    while (true) {
      const rest = bytes.subarray(used);
      const step = this.#expected === "data"
        ? this.#data(rest)
        : this.#expected === "data-end"
        ? this.#dataEnd(rest)
        : this.#line(rest);
      if (step === "more") return { kind: "more", used };
      if (step === "whole") return { kind: "whole", used: used + 2 };
      if (typeof step !== "number") return step;
      used += step;
    }
  }

  #data(bytes: Uint8Array): number | "more" {
    if (bytes.length === 0) return "more";
    const part = bytes.length > this.#left ? bytes.subarray(0, this.#left) : bytes;
    this.#keep(part);
    this.#left -= part.length;
    if (this.#left === 0) this.#expected = "data-end";
    return part.length;
  }

  #dataEnd(bytes: Uint8Array): number | "more" | Refused {
    if (bytes.length === 0) return "more";
    if (bytes[0] !== CR || (bytes.length > 1 && bytes[1] !== LF)) {
      return refused(400, "a chunk is longer than its size");
    }
    if (bytes.length === 1) return "more";
    this.#expected = "size";
    return 2;
  }

  #line(bytes: Uint8Array): number | "more" | "whole" | Refused {
    const isSize = this.#expected === "size";
    const longest = isSize ? LONGEST_SIZE_LINE : this.#limits.headBytes - this.#trailerBytes;
    const end = bytes.indexOf(LF);
    if (end >= longest || (end < 0 && bytes.length >= longest)) {
      return isSize ? refused(400, "the line of a chunk's size is too long") : this.#tooManyTrailers();
    }
    if (end < 0) return "more";
    if (bytes[end - 1] !== CR) return refused(400, "a line does not end with CR LF");
    const line = textOf(bytes.subarray(0, end - 1));
    return isSize ? this.#size(line) : this.#trailer(line);
  }

  #size(line: string): number | Refused {
    const size = SIZE_LINE.exec(line)?.[1];
    if (size === undefined) return refused(400, "a chunk's size is not a hexadecimal number");
    this.#extensionBytes += line.length - size.length;
    if (this.#extensionBytes > this.#limits.headBytes) {
      return refused(400, "the chunks have too many extensions");
    }
    this.#left = parseInt(size, 16);
    this.#total += this.#left;
    if (this.#total > this.#limits.bodyBytes) return tooLargeBody(this.#limits);
    this.#expected = this.#left === 0 ? "trailer" : "data";
    return line.length + 2;
  }

  #trailer(line: string): number | "whole" | Refused {
    if (line === "") return "whole";
    this.#trailerFields++;
    this.#trailerBytes += line.length + 2;
    if (this.#trailerFields > this.#limits.fields) return this.#tooManyTrailers();
    const field = parseField(line);
    return field.kind === "refused" ? field : line.length + 2;
  }

  #tooManyTrailers(): Refused {
    return refused(431, "the fields after the body are too many or too long");
  }
}

export function tooLargeBody(limits: Readonly<HttpLimits>): Refused {
  return refused(413, `the body is larger than ${limits.bodyBytes} bytes`);
}
