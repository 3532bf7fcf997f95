import { LockvisorError } from "../errors.ts";

const UNITS: Record<string, number> = { "": 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 };

/**
 * Bytes of a size such as `800K`, `100M`, `1.5G`, or a bare number of bytes; K, M and G are powers of 1024, as QEMU
 * takes them.
 * @throws {LockvisorError} `usage`
 */
export function parseSize(option: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?$/i.exec(text);
  const bytes = match === null ? 0 : Math.round(Number(match[1]) * UNITS[match[2]!.toUpperCase()]!);
  if (bytes > 0 && Number.isSafeInteger(bytes)) return bytes;
  throw new LockvisorError("usage", `${option}: "${text}" is not a size such as 800K, 100M or 1.5G`);
}

/** Bytes as people read them, with three digits: `512 MiB`. */
export function formatSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}
