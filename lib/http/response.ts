import { isToken } from "./fields.ts";
import type { ResponseHeaders, WholeResponse } from "./message.ts";
import type { HttpVersion, RequestLine } from "./request_head.ts";

const encoder = new TextEncoder();

/** The interim answer to `Expect: 100-continue`, RFC 9110, section 10.1.1. */
export const CONTINUE = encoder.encode("HTTP/1.1 100 Continue\r\n\r\n");

/** What ends a chunked body, RFC 9112, section 7.1. */
export const LAST_CHUNK = encoder.encode("0\r\n\r\n");

/** How a response's body ends: there is none, after so many bytes, by a last chunk, or with the connection. */
export type ResponseFraming =
  | { kind: "none" }
  | { kind: "length"; bytes: number }
  | { kind: "chunked" }
  | { kind: "connection" };

/** What becomes of the connection after a response. */
export type Afterwards = "keep" | "close";

export interface ResponseHead {
  status: number;
  headers: ResponseHeaders;
  framing: ResponseFraming;
  /** The request's version: to HTTP/1.0 has to be said what is a matter of course in HTTP/1.1. */
  version: HttpVersion;
  afterwards: Afterwards;
}

/** Whether responses of this status never have a body, RFC 9110, sections 15.3.5 and 15.4.5. */
export function isBodiless(status: number): boolean {
  return status === 204 || status === 304;
}

/** The fields that say where a response ends: the server writes them, and nobody else. */
const OWN_FIELDS = new Set(["connection", "content-length", "date", "keep-alive", "transfer-encoding"]);

/**
 * A response's head, RFC 9112, section 4.
 * @throws {RangeError} for a status, a name or a value that no head may have; nothing of it is sent then
 */
function formatHead({ status, headers, framing, version, afterwards }: ResponseHead): string {
  if (!Number.isInteger(status) || status < 200 || status > 599) {
    throw new RangeError(`a response cannot have the status ${status}`);
  }
  let head = `HTTP/1.1 ${status} ${REASONS[status] ?? ""}\r\n`;
  for (const name in headers) {
    const value = headers[name]!;
    if (!isToken(name)) throw new RangeError(`a response cannot have a header ${JSON.stringify(name)}`);
    if (OWN_FIELDS.has(name.toLowerCase())) throw new RangeError(`the header ${name} is the server's own`);
    if (!/^[\t\x20-\x7e]*$/.test(value)) {
      throw new RangeError(`the header ${name} has other than printable ASCII`);
    }
    head += `${name}: ${value}\r\n`;
  }
  if (framing.kind === "length") head += `content-length: ${framing.bytes}\r\n`;
  if (framing.kind === "chunked") head += "transfer-encoding: chunked\r\n";
  if (afterwards === "close") head += "connection: close\r\n";
  else if (version === "1.0") head += "connection: keep-alive\r\n";
  return `${head}date: ${dateNow()}\r\n\r\n`;
}

let dateSecond = 0;
let dateText = "";

/** The time for `Date`, RFC 9110, section 6.6.1, made anew once a second. */
function dateNow(): string {
  const now = Date.now();
  const second = Math.floor(now / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = new Date(now).toUTCString();
  }
  return dateText;
}

/** Up to this size a body goes out together with its head: one call for both, at the price of a copy. */
const SMALL_BODY = 16 * 1024;

const NOTHING = new Uint8Array(0);

/**
 * A whole response as what is to be written, one after the other.
 * @throws {RangeError} when it is none that can be sent
 */
export function formatWhole(
  { status, headers = {}, body: content }: WholeResponse,
  { method, version }: Pick<RequestLine, "method" | "version">,
  afterwards: Afterwards,
): Uint8Array[] {
  const body = isBodiless(status) ? NOTHING : typeof content === "object" ? content : encoder.encode(content);
  const framing: ResponseFraming = isBodiless(status)
    ? { kind: "none" }
    : { kind: "length", bytes: body.length };
  const head = formatHead({ status, headers, framing, version, afterwards });
  if (method === "HEAD" || body.length === 0) return [encoder.encode(head)];
  if (body.length > SMALL_BODY) return [encoder.encode(head), body];
  // Every character of a head is one byte.
  const whole = new Uint8Array(head.length + body.length);
  encoder.encodeInto(head, whole);
  whole.set(body, head.length);
  return [whole];
}

/** The head of a streamed response. @throws {RangeError} when it is none that can be sent */
export function formatStreamHead(head: ResponseHead): Uint8Array {
  return encoder.encode(formatHead(head));
}

/** A piece of a stream: as a chunk, or as it is where the end of the connection ends the body. */
export function pieceOfStream(text: string, framing: ResponseFraming): Uint8Array {
  const bytes = encoder.encode(text);
  if (framing.kind !== "chunked") return bytes;
  const size = `${bytes.length.toString(16)}\r\n`;
  const chunk = new Uint8Array(size.length + bytes.length + 2);
  encoder.encodeInto(size, chunk);
  chunk.set(bytes, size.length);
  chunk.set([13, 10], size.length + bytes.length);
  return chunk;
}

/** RFC 9110, section 15. Clients read the number only. */
const REASONS: Record<number, string> = {
  200: "OK",
  201: "Created",
  202: "Accepted",
  204: "No Content",
  301: "Moved Permanently",
  302: "Found",
  303: "See Other",
  304: "Not Modified",
  307: "Temporary Redirect",
  308: "Permanent Redirect",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  406: "Not Acceptable",
  408: "Request Timeout",
  409: "Conflict",
  410: "Gone",
  411: "Length Required",
  412: "Precondition Failed",
  413: "Content Too Large",
  414: "URI Too Long",
  415: "Unsupported Media Type",
  417: "Expectation Failed",
  422: "Unprocessable Content",
  423: "Locked",
  428: "Precondition Required",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
  505: "HTTP Version Not Supported",
};
