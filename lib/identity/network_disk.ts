import { LockvisorError } from "../errors.ts";
import { absolutePath } from "./absolute_path.ts";
import { sha256Hex } from "./digest.ts";
import { parseRbdName, rbdName } from "./rbd_name.ts";
import { normalHost, normalPath, parseUri, percentDecode, percentEncode, type Uri } from "./uri.ts";

/** A disk that QEMU reaches over a protocol of its own, as qemu(1) "Disk Images" and "Device URL Syntax" describe. */
export interface NetworkDisk {
  /** For people and for QEMU's syntax: the normalised URI, without user, password and options. */
  uri: string;
  /**
   * What makes the disk the same one, as far as the URI tells. Where the server is only one of several ways to
   * the same disk (a cluster's node, an iSCSI portal), it is not part of this.
   */
  identity: string;
  /** Whether the address means something else on every host: a unix socket, `localhost`. */
  hostLocal: boolean;
}

type Reader = (text: string, scheme: string) => NetworkDisk;

const READERS: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  ["rbd", readRbd],
  ["nbd", readNbd],
  ["nbd+tcp", readNbd],
  ["nbd+unix", readNbd],
  ["iscsi", readIscsi],
  ["iser", readIscsi],
  ["nfs", readNfs],
  ["gluster", readGluster],
  ["gluster+tcp", readGluster],
  ["gluster+rdma", readGluster],
  ["gluster+unix", readGluster],
  ["sheepdog", readSheepdog],
  ["sheepdog+tcp", readSheepdog],
  ["sheepdog+unix", readSheepdog],
  ["ssh", readSsh],
  ["sftp", readSsh],
  ["http", readWeb],
  ["https", readWeb],
  ["ftp", readWeb],
  ["ftps", readWeb],
]);

const DEFAULT_PORT: Record<string, number> = {
  nbd: 10809,
  iscsi: 3260,
  nfs: 2049,
  gluster: 24007,
  sheepdog: 7000,
  ssh: 22,
  http: 80,
  https: 443,
  ftp: 21,
  ftps: 990,
};

/** The schemes of network disks, for messages and documentation. */
export const NETWORK_SCHEMES: readonly string[] = [...READERS.keys()];

/** Whether a disk's name begins with the scheme of a network disk. */
export function isNetworkDisk(text: string): boolean {
  return READERS.has(schemeOf(text) ?? "");
}

/**
 * What a network disk's name means.
 *
 * @throws LockvisorError `data` with the reason; the message never holds the name itself, which may contain a
 * password
 */
export function readNetworkDisk(text: string): NetworkDisk {
  const scheme = schemeOf(text) ?? "";
  const reader = READERS.get(scheme);
  if (reader === undefined) throw malformed(scheme, `the scheme is not one of ${NETWORK_SCHEMES.join(", ")}`);
  // deno-lint-ignore no-control-regex
  if (/[\u0000-\u0020\u007f]/.test(text) && !/^(rbd|nbd|sheepdog):(?!\/\/)/i.test(text)) {
    throw malformed(scheme, "it has spaces or control characters; write them as %20 and so on");
  }
  return reader(text.slice(text.indexOf(":") + 1), scheme);
}

/** The identity text of a network disk; one that is local to its host carries the host's id. */
export function networkIdentity(disk: NetworkDisk, hostId: string): string {
  return disk.hostLocal ? `uri:${hostId}:${disk.identity}` : `uri:${disk.identity}`;
}

function schemeOf(text: string): string | undefined {
  return /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text)?.[1]?.toLowerCase();
}

function malformed(scheme: string, reason: string): LockvisorError {
  return new LockvisorError("data", `${scheme}: disk cannot be understood: ${reason}`);
}

/** `rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][:OPTION=VALUE…]`; which cluster is left to the options and does not count. */
function readRbd(text: string, scheme: string): NetworkDisk {
  const image = parseRbdName(text);
  if (typeof image === "string") throw malformed(scheme, image);
  return global(rbdName(image));
}

/** `nbd:HOST:PORT[:exportname=X]`, `nbd:unix:PATH[:exportname=X]` and the URIs of the NBD project. */
function readNbd(text: string, scheme: string): NetworkDisk {
  if (!text.startsWith("//")) return readOldNbd(text, scheme);
  const uri = uriOf(text, scheme);
  const exportName = percentDecode(uri.path.replace(/^\/+/, ""));
  if (scheme === "nbd+unix") return nbdSocket(socketOf(uri, scheme), exportName);
  return nbdServer(hostOf(uri, scheme), portOf(uri, "nbd"), exportName);
}

function readOldNbd(text: string, scheme: string): NetworkDisk {
  const marker = text.indexOf(":exportname=");
  const address = marker < 0 ? text : text.slice(0, marker);
  const exportName = marker < 0 ? "" : text.slice(marker + ":exportname=".length);
  if (scheme !== "nbd") throw malformed(scheme, `wanted ${scheme}://…`);
  if (address.startsWith("unix:")) return nbdSocket(address.slice("unix:".length), exportName);
  const parts = /^(\[[^\]]*\]|[^:[\]]*):(\d+)$/.exec(address);
  if (parts === null) throw malformed(scheme, "wanted nbd:HOST:PORT, nbd:unix:PATH or nbd://HOST");
  const uri = uriOf(`//${parts[1]}:${parts[2]}/`, scheme);
  return nbdServer(hostOf(uri, scheme), portOf(uri, "nbd"), exportName);
}

function nbdServer(host: string, port: string, exportName: string): NetworkDisk {
  return server(`nbd://${host}${port}/${percentEncode(exportName, "/")}`, host);
}

function nbdSocket(socket: string, exportName: string): NetworkDisk {
  if (!socket.startsWith("/")) throw malformed("nbd", "the path of the unix socket must be absolute");
  const uri = `nbd+unix:///${percentEncode(exportName, "/")}?socket=${
    percentEncode(absolutePath(socket), "/")
  }`;
  return { uri, identity: uri, hostLocal: true };
}

/** `iscsi://[USER[%PASSWORD]@]PORTAL[:PORT]/TARGET/LUN`. The target's name is unique in the world (RFC 7143, 4.2.7). */
function readIscsi(text: string, scheme: string): NetworkDisk {
  const uri = uriOf(text, scheme);
  const host = hostOf(uri, scheme);
  const [target = "", lun = "", ...more] = uri.path.split("/").filter((component) => component !== "");
  if (target === "" || !/^\d{1,5}$/.test(lun) || more.length > 0) {
    throw malformed(scheme, `wanted ${scheme}://PORTAL/TARGET/LUN with a decimal LUN`);
  }
  const unit = `${percentEncode(percentDecode(target).toLowerCase(), ":")}/${Number(lun)}`;
  return {
    uri: `iscsi://${host}${portOf(uri, "iscsi")}/${unit}`,
    identity: `iscsi://${unit}`,
    hostLocal: false,
  };
}

/** `nfs://SERVER[:PORT]/PATH[?OPTIONS]`, the client inside QEMU. A mounted NFS is a file, not this. */
function readNfs(text: string, scheme: string): NetworkDisk {
  const uri = uriOf(text, scheme);
  return global(`nfs://${hostOf(uri, scheme)}${portOf(uri, "nfs")}${filePathOf(uri, scheme)}`);
}

/** `gluster[+TRANSPORT]://[SERVER[:PORT]]/VOLUME/PATH[?socket=…]`. Every server of the cluster serves the volume. */
function readGluster(text: string, scheme: string): NetworkDisk {
  const uri = uriOf(text, scheme);
  const path = filePathOf(uri, scheme);
  if (path.split("/").length < 3) throw malformed(scheme, "wanted a volume and a path: /VOLUME/PATH");
  const identity = `gluster:/${path}`;
  if (scheme === "gluster+unix") {
    const socket = percentEncode(absolutePath(socketOf(uri, scheme)), "/");
    return { uri: `gluster+unix://${path}?socket=${socket}`, identity, hostLocal: false };
  }
  const host = uri.host === "" ? "localhost" : hostOf(uri, scheme);
  return { uri: `gluster://${host}${portOf(uri, "gluster")}${path}`, identity, hostLocal: false };
}

/** `sheepdog:[HOST:PORT:]VDI` or `sheepdog[+TRANSPORT]://[HOST[:PORT]]/VDI`. Every gateway serves the same cluster. */
function readSheepdog(text: string, scheme: string): NetworkDisk {
  const vdi = text.startsWith("//")
    ? percentDecode(uriOf(text, scheme, { keepFragment: true }).path.replace(/^\/+/, ""))
    : text.replace(/^[^:]+:\d+:/, "");
  if (vdi === "") throw malformed(scheme, "it names no disk (VDI)");
  return global(`sheepdog:${percentEncode(vdi, ":#")}`);
}

/** `ssh://[USER@]SERVER[:PORT]/PATH[?OPTIONS]`; `sftp` is the same file. */
function readSsh(text: string, scheme: string): NetworkDisk {
  const uri = uriOf(text, scheme);
  const host = hostOf(uri, scheme);
  return server(`ssh://${host}${portOf(uri, "ssh")}${filePathOf(uri, scheme)}`, host);
}

/** `http`, `https`, `ftp` and `ftps` by way of curl. The query may be a signature: only its hash is kept. */
function readWeb(text: string, scheme: string): NetworkDisk {
  const uri = uriOf(text, scheme);
  const host = hostOf(uri, scheme);
  const query = uri.query === "" ? "" : `?sha256=${sha256Hex(uri.query).slice(0, 32)}`;
  return server(`${scheme}://${host}${portOf(uri, scheme)}${normalPath(uri.path)}${query}`, host);
}

function global(uri: string): NetworkDisk {
  return { uri, identity: uri, hostLocal: false };
}

function server(uri: string, host: string): NetworkDisk {
  return { uri, identity: uri, hostLocal: host === "localhost" };
}

function uriOf(text: string, scheme: string, options: { keepFragment?: boolean } = {}): Uri {
  const uri = parseUri(text, options);
  if (typeof uri === "string") throw malformed(scheme, uri);
  return uri;
}

function hostOf(uri: Uri, scheme: string): string {
  if (uri.host === "") throw malformed(scheme, "it names no server");
  const host = normalHost(uri.host);
  if (host === undefined) throw malformed(scheme, "the server's name or address is not valid");
  return host;
}

/** `:PORT`, or nothing for the scheme's own port. */
function portOf(uri: Uri, scheme: string): string {
  return uri.port === undefined || uri.port === DEFAULT_PORT[scheme] ? "" : `:${uri.port}`;
}

function filePathOf(uri: Uri, scheme: string): string {
  const path = normalPath(uri.path);
  if (path === "/") throw malformed(scheme, "it names no file");
  return path;
}

function socketOf(uri: Uri, scheme: string): string {
  const option = uri.query.split("&").find((part) => part.startsWith("socket="));
  const socket = percentDecode((option ?? "").slice("socket=".length));
  if (!socket.startsWith("/")) throw malformed(scheme, "wanted ?socket=PATH with an absolute path");
  return socket;
}
