import { isToken, listOf, parseField } from "./fields.ts";
import { type HttpLimits, type Refused, refused } from "./message.ts";

/** A request's first line. */
export interface RequestLine {
  kind: "line";
  method: string;
  target: string;
  path: string;
  /** What stands behind the `?`, or "". */
  search: string;
  /** The host that the target names, where it names one. */
  host: string | undefined;
  version: HttpVersion;
}

export type HttpVersion = "1.0" | "1.1";

/** How the body's end is known. */
export type BodyFraming = { kind: "none" } | { kind: "length"; bytes: number } | { kind: "chunked" };

/** A request without its body. */
export interface RequestHead {
  kind: "head";
  line: RequestLine;
  headers: ReadonlyMap<string, string>;
  framing: BodyFraming;
  /** Whether the client waits for `100 Continue` before it sends the body. */
  expectsContinue: boolean;
  /** Whether the connection stays open after the answer. */
  persists: boolean;
}

/** Longer than any method there is, RFC 9110, section 9.1, and the registry of methods. */
const LONGEST_METHOD = 32;

/** What the first line may have besides its target: a method, two spaces, `HTTP/1.1`, and the line's end. */
export const LINE_ALLOWANCE = LONGEST_METHOD + 12;

/** What a target is made of, RFC 3986, section 3: everything else has to be percent-encoded. */
const TARGET = /^(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})+$/;

/** A target that names its host, RFC 9112, section 3.2.2: a server has to take it, too. */
const ABSOLUTE = /^https?:\/\/([^/?@]+)([/?].*)?$/i;

/** What `Host` says, RFC 9110, section 7.2: a name or an address, and a port perhaps. It may be empty. */
const HOST = /^(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?$/;

/** Reads a request's first line, RFC 9112, section 3; without its line end. */
export function parseRequestLine(text: string, limits: Readonly<HttpLimits>): RequestLine | Refused {
  const first = text.indexOf(" ");
  const last = text.lastIndexOf(" ");
  if (first < 0 || first === last || text.indexOf(" ", first + 1) !== last) {
    return refused(400, "the request line is not a method, a target and a version with one space between");
  }
  const method = text.slice(0, first);
  if (!isToken(method)) return refused(400, "the method has a character that no method may have");
  if (method.length > LONGEST_METHOD || method === "CONNECT") return refused(501, "the method is not known");
  const version = text.slice(last + 1);
  if (!/^HTTP\/[0-9]\.[0-9]$/.test(version)) {
    return refused(400, "the request line does not end with a version");
  }
  if (version !== "HTTP/1.1" && version !== "HTTP/1.0") {
    return refused(505, `${version} is not served; use HTTP/1.1`);
  }
  const target = text.slice(first + 1, last);
  if (target.length > limits.targetBytes) return tooLongTarget(limits);
  if (!TARGET.test(target)) return refused(400, "the target has a character that has to be percent-encoded");
  const place = placeOf(method, target);
  if (place === undefined) return refused(400, "the target is no path");
  return { kind: "line", method, target, ...place, version: version === "HTTP/1.1" ? "1.1" : "1.0" };
}

export function tooLongTarget(limits: Readonly<HttpLimits>): Refused {
  return refused(414, `the target is longer than ${limits.targetBytes} bytes`);
}

function placeOf(method: string, target: string): Pick<RequestLine, "path" | "search" | "host"> | undefined {
  if (target.startsWith("/")) return { ...split(target), host: undefined };
  if (target === "*") return method === "OPTIONS" ? { path: "*", search: "", host: undefined } : undefined;
  const [, host, rest = "/"] = ABSOLUTE.exec(target) ?? [];
  if (host === undefined || !HOST.test(host)) return undefined;
  return { ...split(rest.startsWith("/") ? rest : `/${rest}`), host };
}

function split(target: string): { path: string; search: string } {
  const mark = target.indexOf("?");
  return mark < 0
    ? { path: target, search: "" }
    : { path: target.slice(0, mark), search: target.slice(mark + 1) };
}

/** Header fields that may come only once: two of them are two readings of one request. */
const SINGLE = new Set(["host", "content-length", "transfer-encoding"]);

/** Reads the header fields, each a line without its end, and what they say of the body and the connection. */
export function parseHead(line: RequestLine, lines: readonly string[]): RequestHead | Refused {
  const headers = new Map<string, string>();
  for (const each of lines) {
    const field = parseField(each);
    if (field.kind === "refused") return field;
    const { name, value } = field;
    const before = headers.get(name);
    if (before !== undefined && SINGLE.has(name)) {
      return refused(400, `there is more than one ${name} header`);
    }
    headers.set(name, before === undefined ? value : `${before}${name === "cookie" ? "; " : ", "}${value}`);
  }
  const host = headers.get("host");
  if (host === undefined && line.version === "1.1") return refused(400, "there is no host header");
  if (host !== undefined && !HOST.test(host)) return refused(400, "the host header names no host");
  if (line.host !== undefined) headers.set("host", line.host);
  const framing = framingOf(line.version, headers);
  if (framing.kind === "refused") return framing;
  const expect = headers.get("expect");
  if (expect !== undefined && line.version === "1.1" && expect.toLowerCase() !== "100-continue") {
    return refused(417, "nothing but 100-continue can be expected");
  }
  return {
    kind: "head",
    line,
    headers,
    framing,
    expectsContinue: expect !== undefined && line.version === "1.1" && framing.kind !== "none",
    persists: persists(line.version, headers.get("connection")),
  };
}

/** RFC 9112, section 6.3; where two fields could be read in two ways, the request is refused. */
function framingOf(version: HttpVersion, headers: ReadonlyMap<string, string>): BodyFraming | Refused {
  const coding = headers.get("transfer-encoding");
  const length = headers.get("content-length");
  if (coding !== undefined) {
    if (length !== undefined) return refused(400, "there are both content-length and transfer-encoding");
    if (version === "1.0") return refused(400, "HTTP/1.0 has no transfer-encoding");
    const codings = listOf(coding);
    if (codings.length === 0) return refused(400, "the transfer-encoding is empty");
    if (codings.indexOf("chunked") !== codings.lastIndexOf("chunked")) {
      return refused(400, "the body is chunked more than once");
    }
    if (codings.length > 1 || codings[0] !== "chunked") {
      return refused(501, "no transfer-encoding but chunked is known");
    }
    return { kind: "chunked" };
  }
  if (length === undefined) return { kind: "none" };
  if (!/^[0-9]+$/.test(length)) return refused(400, "the content-length is not a number");
  const bytes = Number(length);
  return bytes === 0 ? { kind: "none" } : { kind: "length", bytes };
}

function persists(version: HttpVersion, connection: string | undefined): boolean {
  if (connection === undefined) return version === "1.1";
  const options = listOf(connection);
  return !options.includes("close") && (version === "1.1" || options.includes("keep-alive"));
}
