/** Where QEMU's migration has got to, from `query-migrate`; qemu's docs/interop/qemu-qmp-ref. */
export interface Progress {
  /** Memory of the guest, in bytes, and how much of it is still to be sent; what changed meanwhile counts again. */
  totalBytes: number;
  remainingBytes: number;
  /** What was sent up to now, in bytes. */
  sentBytes: number;
  /** Bytes per second that go out, and that the guest changes. */
  speed: number;
  dirtyRate: number;
  /** How often the whole memory was gone through. */
  iteration: number;
  /** How much the guest's processors are slowed down, from 0 to 99 per cent. */
  throttle: number;
  elapsedMs: number;
}

/** How a migration stands for QEMU. */
export type MigrationState =
  | { kind: "moving"; progress: Progress }
  | { kind: "completed"; progress: Progress; downtimeMs: number | undefined }
  | { kind: "failed"; reason: string | undefined }
  | { kind: "cancelled" };

/** Reads what `query-migrate` has returned. What is missing counts as nothing: versions differ in what they tell. */
export function readMigrationState(answer: unknown): MigrationState {
  const fields = record(answer);
  const { status } = fields;
  switch (status) {
    case "completed":
      return {
        kind: "completed",
        progress: readProgress(fields),
        downtimeMs: typeof fields.downtime === "number" ? fields.downtime : undefined,
      };
    case "failed": {
      const reason = fields["error-desc"];
      return { kind: "failed", reason: typeof reason === "string" ? reason : undefined };
    }
    case "cancelled":
    case "cancelling":
    case undefined:
    case "none":
      return { kind: "cancelled" };
    default:
      return { kind: "moving", progress: readProgress(fields) };
  }
}

function readProgress(fields: Record<string, unknown>): Progress {
  const ram = record(fields.ram);
  return {
    totalBytes: number(ram.total),
    remainingBytes: number(ram.remaining),
    sentBytes: number(ram.transferred),
    speed: number(ram.mbps) * 1e6 / 8,
    dirtyRate: number(ram["dirty-pages-rate"]) * (number(ram["page-size"]) || 4096),
    iteration: number(ram["dirty-sync-count"]),
    throttle: number(fields["cpu-throttle-percentage"]),
    elapsedMs: number(fields["total-time"]),
  };
}

/** Seconds until the memory has gone, if things stay as they are; undefined when it changes as fast as it goes. */
export function remainingSeconds({ remainingBytes, speed, dirtyRate }: Progress): number | undefined {
  const net = speed - dirtyRate;
  return net > 0 ? remainingBytes / net : undefined;
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
}

function number(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : 0;
}
