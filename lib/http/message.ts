/** What a client may take up of the server, and for how long. Sizes in bytes, times in milliseconds. */
export interface HttpLimits {
  /** A request's head: its first line, its header fields, and the empty line after them. */
  headBytes: number;
  /** The target in a request's first line: path and query. RFC 9112, section 3, wants at least 8000 for the line. */
  targetBytes: number;
  /** How many header fields a request may have. */
  fields: number;
  bodyBytes: number;
  /** Connections that are served at a time; the next one gets 503. */
  connections: number;
  /** From a head's first byte to its last; a new connection has as long to send a byte at all. */
  headMs: number;
  /** From the end of the head to the end of the body. */
  bodyMs: number;
  /** How long a connection may wait for its next request. */
  idleMs: number;
  /** How long a client may take to read the next 64 KiB of an answer. */
  writeMs: number;
}

export const DEFAULT_LIMITS: Readonly<HttpLimits> = {
  headBytes: 16 * 1024,
  targetBytes: 8 * 1024,
  fields: 100,
  bodyBytes: 1024 * 1024,
  connections: 1000,
  headMs: 10_000,
  bodyMs: 10_000,
  idleMs: 60_000,
  writeMs: 30_000,
};

/** A request that has come in whole. */
export interface HttpRequest {
  /** As it was sent: methods are case-sensitive. */
  method: string;
  /** As it was sent: `/path?query`, `http://host/path?query`, or `*`. */
  target: string;
  /** The target's path, still percent-encoded: every `%` in it is followed by two hexadecimal digits. */
  path: string;
  query: URLSearchParams;
  /**
   * By their names in lower case, with one character for each byte of a value (ISO 8859-1). The values of a name that
   * came more than once are joined by ", ", those of `cookie` by "; ".
   */
  headers: ReadonlyMap<string, string>;
  /** Empty when there is none. */
  body: Uint8Array;
  /**
   * Aborted when nobody waits for the answer any more: the client has gone, or the server is cut short. For a response
   * that is a stream also when the server closes. On a unix socket a client that goes is noticed at once; on TCP one
   * that closes its connection properly is noticed only when something is sent to it.
   */
  signal: AbortSignal;
}

/** Fields of a response by name. Values are printable ASCII. `content-length` and the like are the server's own. */
export type ResponseHeaders = Readonly<Record<string, string>>;

/** A response that is there as a whole. A string is sent as UTF-8. */
export interface WholeResponse {
  status: number;
  headers?: ResponseHeaders;
  body?: string | Uint8Array;
  stream?: undefined;
}

/**
 * A response that comes piece by piece, such as server-sent events. Each piece is sent at once, and the next one is
 * asked for when the kernel has taken it. When the client goes or the server closes, the request's signal is aborted
 * and the iterator's return() is called.
 */
export interface StreamedResponse {
  status: number;
  headers?: ResponseHeaders;
  stream: AsyncIterable<string>;
}

export type HttpResponse = WholeResponse | StreamedResponse;

/** Answers a request. What it throws is told as a problem, and the client gets 500. */
export type HttpHandler = (request: HttpRequest) => Promise<HttpResponse> | HttpResponse;

/** The content of a response that the server makes itself, for a request that never reached the handler. */
export interface FailureContent {
  /** The media type, for `content-type`. */
  type: string;
  body: string;
}

/** What a server does for its clients, and how much it lets them take. */
export interface HttpService {
  handler: HttpHandler;
  limits: Readonly<HttpLimits>;
  /** Puts an error into words in the form that the clients know. */
  fail: (status: number, message: string) => FailureContent;
  /** Is told, in one line, what went wrong that no client is told. */
  problem: (line: string) => void;
}

/** A request that breaks the protocol or a limit: the status to answer with, and why. */
export interface Refused {
  kind: "refused";
  status: number;
  message: string;
}

export function refused(status: number, message: string): Refused {
  return { kind: "refused", status, message };
}
