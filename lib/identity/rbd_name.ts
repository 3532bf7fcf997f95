/** An image of Ceph's block device, in its pool. */
export interface RbdImage {
  pool: string;
  namespace?: string | undefined;
  image: string;
  snapshot?: string | undefined;
}

/**
 * The name in QEMU's own form, `rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]`, with a backslash before characters that
 * would end a part.
 */
export function rbdName({ pool, namespace, image, snapshot }: RbdImage): string {
  const path = [pool, namespace, image].filter((part) => part !== undefined && part !== "")
    .map((part) => escape(part!)).join("/");
  return `rbd:${path}${snapshot === undefined ? "" : `@${escape(snapshot)}`}`;
}

/**
 * Reads what follows `rbd:`; options behind a colon do not count.
 *
 * @returns The image, or what is wrong, in words that hold nothing of the text.
 */
export function parseRbdName(text: string): RbdImage | string {
  if (text.startsWith("//")) return "wanted rbd:POOL/IMAGE, without //";
  const [name = ""] = splitEscaped(text, ":");
  const [path = "", snapshot, ...more] = splitEscaped(name, "@");
  if (more.length > 0) return "it names more than one snapshot";
  const parts = splitEscaped(path, "/").map(unescape);
  if (parts.length < 2 || parts.length > 3) return "wanted rbd:POOL/IMAGE or rbd:POOL/NAMESPACE/IMAGE";
  const pool = parts[0]!;
  const image = parts.at(-1)!;
  if (pool === "" || image === "" || snapshot === "") return "the pool, the image or the snapshot is empty";
  return {
    pool,
    namespace: parts.length === 3 ? parts[1] : undefined,
    image,
    snapshot: snapshot === undefined ? undefined : unescape(snapshot),
  };
}

function escape(text: string): string {
  return text.replace(/[\\:@/]/g, "\\$&");
}

function unescape(text: string): string {
  return text.replace(/\\(.)/gs, "$1");
}

/** Splits at a character that no backslash precedes; the backslashes stay. */
function splitEscaped(text: string, separator: string): string[] {
  const parts: string[] = [];
  let start = 0;
  for (let index = 0; index < text.length; index++) {
    if (text[index] === "\\") index++;
    else if (text[index] === separator) {
      parts.push(text.slice(start, index));
      start = index + 1;
    }
  }
  return [...parts, text.slice(start)];
}
