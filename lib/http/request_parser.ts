import { BodyBytes } from "./body_bytes.ts";
import { ChunkedBody, tooLargeBody } from "./chunked_body.ts";
import { isTokenByte, textOf } from "./fields.ts";
import { type HttpLimits, type Refused, refused } from "./message.ts";
import {
  LINE_ALLOWANCE,
  parseHead,
  parseRequestLine,
  type RequestHead,
  type RequestLine,
  tooLongTarget,
} from "./request_head.ts";

const CR = 13;
const LF = 10;

/** What an idle connection has ready for its next request, in bytes. */
const SMALL_BUFFER = 4 * 1024;

/** As large as the buffer gets for a body. */
const LARGE_BUFFER = 64 * 1024;

/** What the bytes so far have come to. */
export type ParseStep =
  | { kind: "more" }
  /** The client waits to be told that the body is wanted. */
  | { kind: "proceed" }
  | { kind: "request"; head: RequestHead; body: Uint8Array }
  /** Nothing that follows can be read any more. */
  | Refused;

/** Where in the requests of a connection the bytes end. */
export type ParsePosition = "between" | "head" | "body";

/** What of a head has been looked through. Offsets count from its first byte. */
interface HeadProgress {
  line: RequestLine | undefined;
  scanned: number;
  lineStart: number;
  fields: string[];
  sawEmptyLine: boolean;
}

interface BodyProgress {
  head: RequestHead;
  chunked: ChunkedBody | undefined;
  bytes: BodyBytes;
}

/**
 * Finds the requests in the bytes of a connection, RFC 9112. It is strict: of what can be read in two ways nothing is
 * taken. What comes out does not depend on the pieces in which the bytes come in.
 */
export class RequestParser {
  readonly #limits: Readonly<HttpLimits>;
  #buffer = new Uint8Array(SMALL_BUFFER);
  #start = 0;
  #end = 0;
  #head = freshHead();
  #body: BodyProgress | undefined;

  constructor(limits: Readonly<HttpLimits>) {
    this.#limits = limits;
  }

  get position(): ParsePosition {
    if (this.#body !== undefined) return "body";
    return this.#end > this.#start || this.#head.sawEmptyLine ? "head" : "between";
  }

  /**
   * Where to put the bytes that come next. `wanted` makes room for a request that is not complete; `ahead` gives what
   * there is, perhaps nothing, so that a client cannot fill the memory with requests that nobody has got to yet. The
   * place is good until the next call of this, whatever is read on in the meantime.
   */
  room(purpose: "wanted" | "ahead"): Uint8Array {
    if (this.#start === this.#end) {
      this.#start = this.#end = 0;
      if (this.#body === undefined && this.#buffer.length > SMALL_BUFFER) this.#resize(SMALL_BUFFER);
    } else if (this.#end === this.#buffer.length && this.#start > 0) {
      this.#buffer.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    if (this.#end === this.#buffer.length && purpose === "wanted") this.#resize(this.#buffer.length * 2);
    return this.#buffer.subarray(this.#end);
  }

  /** Says that so many bytes were put where there was room. */
  filled(bytes: number): void {
    this.#end += bytes;
  }

  /** Drops what has come in, for a connection whose requests nobody reads any more. */
  discard(): void {
    this.#start = this.#end = 0;
    this.#head = freshHead();
    this.#body = undefined;
  }

  /** Reads on in what has come in. To be called until it wants more. */
  next(): ParseStep {
    if (this.#body === undefined) {
      const head = this.#nextHead();
      if (head === undefined) return { kind: "more" };
      if (head.kind === "refused") return head;
      if (head.framing.kind === "none") return this.#request(head, new BodyBytes());
      if (head.framing.kind === "length" && head.framing.bytes > this.#limits.bodyBytes) {
        return tooLargeBody(this.#limits);
      }
      this.#body = this.#freshBody(head);
      if (head.expectsContinue) return { kind: "proceed" };
    }
    return this.#nextBody(this.#body);
  }

  #nextHead(): RequestHead | Refused | undefined {
    while (this.#start < this.#end) {
      const bytes = this.#buffer.subarray(this.#start, this.#end);
      const first = bytes[0]!;
      if (this.#head.scanned === 0 && first !== CR && !isTokenByte(first)) {
        return refused(400, "what was sent is not HTTP");
      }
      const found = this.#scanHead(bytes);
      if (found === undefined || typeof found !== "number") return found;
      this.#start += found;
      const { line, fields } = this.#head;
      if (line === undefined) {
        this.#head = { ...freshHead(), sawEmptyLine: true };
        continue;
      }
      this.#head = freshHead();
      return parseHead(line, fields);
    }
    return undefined;
  }

  /**
   * Looks for the empty line that ends a head, and gives the offset behind it. One empty line may come before the head,
   * RFC 9112, section 2.2.
   */
  #scanHead(bytes: Uint8Array): number | Refused | undefined {
    const head = this.#head;
    while (true) {
      const { headBytes, targetBytes } = this.#limits;
      const longest = head.line === undefined ? Math.min(targetBytes + LINE_ALLOWANCE, headBytes) : headBytes;
      const end = bytes.indexOf(LF, head.scanned);
      if (end >= longest || (end < 0 && bytes.length >= longest)) {
        return head.line === undefined ? tooLongTarget(this.#limits) : this.#tooLargeHead();
      }
      if (end < 0) {
        head.scanned = bytes.length;
        return undefined;
      }
      if (bytes[end - 1] !== CR) return refused(400, "a line does not end with CR LF");
      const start = head.lineStart;
      head.lineStart = head.scanned = end + 1;
      if (end === start + 1) {
        if (head.line !== undefined || !head.sawEmptyLine) return end + 1;
        return refused(400, "there are empty lines in place of a request");
      }
      const text = textOf(bytes.subarray(start, end - 1));
      if (head.line === undefined) {
        const line = parseRequestLine(text, this.#limits);
        if (line.kind === "refused") return line;
        head.line = line;
      } else {
        head.fields.push(text);
        if (head.fields.length > this.#limits.fields) return this.#tooLargeHead();
      }
    }
  }

  #tooLargeHead(): Refused {
    const { headBytes, fields } = this.#limits;
    return refused(431, `the head has more than ${headBytes} bytes or ${fields} fields`);
  }

  #freshBody(head: RequestHead): BodyProgress {
    const bytes = new BodyBytes();
    const isChunked = head.framing.kind === "chunked";
    const chunked = isChunked ? new ChunkedBody(this.#limits, (part) => bytes.add(part)) : undefined;
    return { head, chunked, bytes };
  }

  #nextBody(body: BodyProgress): ParseStep {
    const bytes = this.#buffer.subarray(this.#start, this.#end);
    const { framing } = body.head;
    if (body.chunked !== undefined) {
      const outcome = body.chunked.take(bytes);
      if (outcome.kind === "refused") return outcome;
      this.#start += outcome.used;
      return outcome.kind === "whole" ? this.#request(body.head, body.bytes) : { kind: "more" };
    }
    const wanted = framing.kind === "length" ? framing.bytes - body.bytes.length : 0;
    const part = bytes.length > wanted ? bytes.subarray(0, wanted) : bytes;
    if (part.length > 0) body.bytes.add(part);
    this.#start += part.length;
    return part.length === wanted ? this.#request(body.head, body.bytes) : { kind: "more" };
  }

  #request(head: RequestHead, body: BodyBytes): ParseStep {
    this.#body = undefined;
    return { kind: "request", head, body: body.whole() };
  }

  #resize(wanted: number): void {
    const most = Math.max(LARGE_BUFFER, this.#limits.headBytes);
    const buffer = new Uint8Array(Math.min(wanted, most));
    buffer.set(this.#buffer.subarray(this.#start, this.#end));
    this.#buffer = buffer;
    this.#end -= this.#start;
    this.#start = 0;
  }
}

function freshHead(): HeadProgress {
  return { line: undefined, scanned: 0, lineStart: 0, fields: [], sawEmptyLine: false };
}
