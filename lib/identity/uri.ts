/** The parts of `//[USER@]HOST[:PORT]/PATH?QUERY#FRAGMENT` (RFC 3986); user and fragment are dropped. */
export interface Uri {
  /** As written, an IPv6 address with its brackets; empty when there is none. */
  host: string;
  port: number | undefined;
  /** As written, percent-encoded. */
  path: string;
  /** As written, without the `?`. */
  query: string;
}

/**
 * Takes a URI apart, from its `//` on.
 *
 * @param options `keepFragment`: `#` and what follows stay in the path.
 * @returns The parts, or what is wrong, in words that hold nothing of the text.
 */
export function parseUri(text: string, options: { keepFragment?: boolean } = {}): Uri | string {
  const end = options.keepFragment ? /[/?]/ : /[/?#]/;
  if (!text.startsWith("//")) return "wanted // after the scheme";
  const rest = text.slice(2);
  const authorityEnd = rest.search(end);
  const authority = authorityEnd < 0 ? rest : rest.slice(0, authorityEnd);
  const afterAuthority = authorityEnd < 0 ? "" : rest.slice(authorityEnd);
  const withoutFragment = options.keepFragment ? afterAuthority : afterAuthority.replace(/#.*$/s, "");
  const question = withoutFragment.indexOf("?");
  const path = question < 0 ? withoutFragment : withoutFragment.slice(0, question);
  const server = authority.slice(authority.lastIndexOf("@") + 1);
  const parts = /^(\[[^\]]*\]|[^:[\]]*)(?::(\d*))?$/.exec(server);
  if (parts === null) {
    return "the server must be HOST or HOST:PORT, an IPv6 address in brackets (encode / and @ in a password)";
  }
  const port = parts[2] === undefined || parts[2] === "" ? undefined : Number(parts[2]);
  if (port !== undefined && (port < 1 || port > 65535)) return "the port must be from 1 to 65535";
  if (!isPercentEncoded(path)) return "a % in the path must be followed by two hexadecimal digits";
  return { host: parts[1]!, port, path, query: question < 0 ? "" : withoutFragment.slice(question + 1) };
}

function isPercentEncoded(text: string): boolean {
  return !/%(?![0-9A-Fa-f]{2})/.test(text);
}

/** Addresses that lead back to the host itself; connecting to the unspecified address does, too (ip(7)). */
const LOOPBACK = /^(127\.\d+\.\d+\.\d+|0\.0\.0\.0|\[::1?\]|localhost|.*\.localhost)$/;

/**
 * A host in the one form in which it is compared: lower case, no dot at the end, numbers as the resolver reads
 * them, IPv6 shortened, every loopback address as `localhost`. Undefined if it is no host.
 */
export function normalHost(host: string): string | undefined {
  const zone = /^\[(fe80:[^%\]]*)%(?:25)?([A-Za-z0-9_.-]+)\]$/i.exec(host);
  if (zone !== null) {
    const address = normalHost(`[${zone[1]}]`);
    return address === undefined ? undefined : `${address.slice(0, -1)}%25${zone[2]}]`;
  }
  if (host.includes("\\")) return undefined;
  let normal;
  try {
    normal = new URL(`http://${host}/`).hostname.replace(/\.$/, "");
  } catch {
    return undefined;
  }
  if (normal === "") return undefined;
  return LOOPBACK.test(normal) ? "localhost" : normal;
}

/**
 * A URI's path in the one form in which it is compared: unreserved characters decoded, digits of `%XX` in upper
 * case, empty and `.` components dropped, `..` resolved, one slash in front and none at the end.
 */
export function normalPath(path: string): string {
  const components: string[] = [];
  for (const component of path.split("/")) {
    const normal = normalComponent(component);
    if (normal === "..") components.pop();
    else if (normal !== "" && normal !== ".") components.push(normal);
  }
  return `/${components.join("/")}`;
}

function normalComponent(component: string): string {
  const encoded = component.replace(
    /[^A-Za-z0-9\-._~!$&'()*+,;=:@%]/gu,
    (character) => percentEncode(character),
  );
  return encoded.replace(/%([0-9A-Fa-f]{2})/g, (whole, digits: string) => {
    const character = String.fromCharCode(parseInt(digits, 16));
    return /[A-Za-z0-9\-._~]/.test(character) ? character : whole.toUpperCase();
  });
}

/** Every `%XX` decoded as UTF-8; what is not valid stays as it is, with its `%`. */
export function percentDecode(text: string): string {
  return text.replace(/(?:%[0-9A-Fa-f]{2})+/g, (run) => {
    try {
      return decodeURIComponent(run);
    } catch {
      return run.toUpperCase();
    }
  });
}

/** Everything encoded but unreserved characters and those of `keep`; a half of a surrogate pair as U+FFFD. */
export function percentEncode(text: string, keep = ""): string {
  let encoded = "";
  for (const byte of new TextEncoder().encode(text)) {
    const character = String.fromCharCode(byte);
    const plain = /[A-Za-z0-9\-._~]/.test(character) || (byte < 128 && keep.includes(character));
    encoded += plain ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded;
}
