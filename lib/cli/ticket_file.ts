import { fileError, LockvisorError } from "../errors.ts";

/** No ticket comes near this size, in bytes. */
const LARGEST_TICKET = 8 * 1024 * 1024;

/**
 * The text of a ticket, from its file, or with `-` from standard input: one line, and no byte more, since the guest's
 * command gets the rest.
 * @throws {LockvisorError} `data` or `permission` when it cannot be read
 */
export function readTicketText(source: string): string {
  if (source === "-") return readLine(Deno.stdin);
  try {
    const status = Deno.statSync(source);
    if (!status.isFile || status.size > LARGEST_TICKET) {
      throw new LockvisorError("data", `${source} is no ticket of a migration: it is no small regular file`);
    }
    return Deno.readTextFileSync(source);
  } catch (error) {
    if (error instanceof LockvisorError) throw error;
    if (error instanceof Deno.errors.NotFound) {
      throw new LockvisorError("data", `ticket ${source} does not exist`, { cause: error });
    }
    throw fileError(`read the ticket ${source}`, error);
  }
}

function readLine(input: { readSync(bytes: Uint8Array): number | null }): string {
  const bytes: number[] = [];
  const byte = new Uint8Array(1);
  while (input.readSync(byte) !== null && byte[0] !== 0x0a) {
    bytes.push(byte[0]!);
    if (bytes.length > LARGEST_TICKET) {
      throw new LockvisorError("data", "standard input is no ticket of a migration");
    }
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

/**
 * Writes a ticket to a file that nobody else can read (0600), in place of what was there.
 * @throws {LockvisorError} `cannot-create` or `permission`
 */
export function writeTicketFile(path: string, text: string): void {
  const beside = `${path}.${Deno.pid}.tmp`;
  try {
    const file = Deno.openSync(beside, { write: true, createNew: true, mode: 0o600 });
    try {
      const bytes = new TextEncoder().encode(text + "\n");
      for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written));
    } finally {
      file.close();
    }
    Deno.renameSync(beside, path);
  } catch (error) {
    try {
      Deno.removeSync(beside);
    } catch { /* it was not made */ }
    const cause = fileError(`write the ticket ${path}`, error);
    if (cause.code === "permission") throw cause;
    throw new LockvisorError("cannot-create", `${cause.message}; prepare again with another --ticket FILE`, {
      cause: error,
    });
  }
}
