import type { Settings } from "../config/settings.ts";
import type { DriverConfig } from "../driver/contract.ts";

/** The outside world of a command: streams, environment, user. Commands touch these and no globals. */
export interface CliContext {
  /** Results. */
  out(text: string): void;
  /** Everything else, one line each, without the program's name. */
  note(line: string): void;
  environment(name: string): string | undefined;
  effectiveUid: number;
  cwd: string;
  hostName: string;
  /** Whether results go to a terminal that may have colours. */
  colours: "wanted" | "unwanted";
}

/** What every driver is given, from the settings in force. */
export function driverConfig(context: CliContext, settings: Settings): DriverConfig {
  return {
    lockspace: settings.lockspace,
    host: { id: settings.hostId, name: context.hostName },
    readonlyDisks: settings.readonlyDisks,
    sharedStorage: settings.sharedStorage,
    effectiveUid: context.effectiveUid,
    warn: (line) => context.note(`warning: ${line}`),
  };
}

/** The context of the real process. */
export function processContext(): CliContext {
  return {
    out: (text) => writeAll(Deno.stdout, text),
    note: (line) => writeAll(Deno.stderr, `lockvisor: ${line}\n`),
    environment: (name) => Deno.env.get(name),
    effectiveUid: Deno.uid() ?? 0,
    cwd: Deno.cwd(),
    hostName: Deno.hostname(),
    colours: Deno.stdout.isTerminal() && !Deno.noColor ? "wanted" : "unwanted",
  };
}

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let written = 0; written < bytes.length;) written += stream.writeSync(bytes.subarray(written));
}
