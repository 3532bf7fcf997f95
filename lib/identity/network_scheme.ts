/** The schemes of network disks, as qemu(1) names them; network_disk.ts reads what comes after them. */
export const NETWORK_SCHEMES = [
  "rbd",
  "nbd",
  "nbd+tcp",
  "nbd+unix",
  "iscsi",
  "iser",
  "nfs",
  "gluster",
  "gluster+tcp",
  "gluster+rdma",
  "gluster+unix",
  "sheepdog",
  "sheepdog+tcp",
  "sheepdog+unix",
  "ssh",
  "sftp",
  "http",
  "https",
  "ftp",
  "ftps",
] as const;

/** A scheme that lockvisor understands. */
export type NetworkScheme = typeof NETWORK_SCHEMES[number];

/** The scheme that a text begins with, in lower case; undefined for a text without one. */
export function schemeOf(text: string): string | undefined {
  if (!text.includes(":")) return undefined;
  return /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text)?.[1]?.toLowerCase();
}

/** Whether this is the scheme of a network disk. */
export function isNetworkScheme(scheme: string | undefined): scheme is NetworkScheme {
  return (NETWORK_SCHEMES as readonly (string | undefined)[]).includes(scheme);
}

/** Whether a disk's name begins with the scheme of a network disk. */
export function isNetworkDisk(text: string): boolean {
  return isNetworkScheme(schemeOf(text));
}
