import { join } from "node:path";
import { cleanupStack, temporaryFolder } from "./cleanup.ts";
import { Failure } from "./failure.ts";
import { BINARY } from "./project.ts";
import { searchPath } from "./system_packages.ts";

/** What a command of the demonstration printed and how it ended. */
export interface Shown {
  code: number;
  text: string;
}

/** A guest that was started and is still the demonstration's to end. */
export interface Guest {
  name: string;
  child: Deno.ChildProcess;
  ended: boolean;
}

/**
 * A folder of its own in which the demonstration plays: commands run in it, see no settings but its own, are
 * shown as somebody would type them, and leave nothing behind, neither files nor guests, however it ends.
 */
export class DemoStage implements Disposable {
  readonly folder: string;
  readonly #stack = cleanupStack();
  readonly #env: Record<string, string>;

  constructor() {
    this.folder = temporaryFolder(this.#stack, { prefix: "lockvisor-demo-" });
    const settings = join(this.folder, "lockvisor.toml");
    Deno.writeTextFileSync(settings, "");
    const inherited = Object.entries(Deno.env.toObject()).filter(([name]) => !name.startsWith("LOCKVISOR_"));
    this.#env = {
      ...Object.fromEntries(inherited),
      PATH: searchPath(),
      LOCKVISOR_CONFIG: settings,
      LOCKVISOR_LOCKSPACE: join(this.folder, "lockspace"),
      LOCKVISOR_RUNTIME_DIR: join(this.folder, "run"),
      LOCKVISOR_HOST_ID: "demo", // a container may have no /etc/machine-id
    };
  }

  /** Prints a heading of the story. */
  heading(text: string): void {
    console.log(`\n${bold(text)}`);
  }

  /** Runs a command to its end, shows it with what it printed, and fails if its exit status is not the one that belongs there. */
  async show(command: string[], options: { status: number } = { status: 0 }): Promise<Shown> {
    console.log(`${dim("$")} ${typed(command)}`);
    const output = await this.#command(command, "piped").output();
    const decoder = new TextDecoder();
    const text = (decoder.decode(output.stdout) + decoder.decode(output.stderr)).trimEnd();
    if (text !== "") console.log(text.replace(/^/gm, "  "));
    if (output.code !== 0) console.log(dim(`  (exit status ${output.code})`));
    expect(output.code === options.status, `${command[0]} ends with exit status ${options.status}`);
    return { code: output.code, text };
  }

  /** Runs a command to its end and returns its standard output, without showing anything. */
  async ask(command: string[]): Promise<string> {
    const output = await this.#command(command, "piped").output();
    const decoder = new TextDecoder();
    expect(output.success, `${typed(command)} works (${decoder.decode(output.stderr).trim()})`);
    return decoder.decode(output.stdout);
  }

  /** Starts a command that goes on running, as `&` does, and shows it. */
  start(name: string, command: string[]): Guest {
    console.log(`${dim("$")} ${typed(command)} &`);
    const guest: Guest = { name, child: this.#command(command, "inherit").spawn(), ended: false };
    guest.child.status.then(() => guest.ended = true);
    this.#stack.defer(() => {
      if (!guest.ended) guest.child.kill("SIGKILL");
    });
    return guest;
  }

  /** Kills a guest the hard way, shows it, and waits until the kernel has taken it away. */
  async kill(guest: Guest): Promise<void> {
    console.log(`${dim("$")} kill -9 ${guest.child.pid}`);
    guest.child.kill("SIGKILL");
    await guest.child.status;
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }

  #command(command: string[], output: "piped" | "inherit"): Deno.Command {
    const [name, ...args] = command;
    return new Deno.Command(name === "lockvisor" ? BINARY : name!, {
      args,
      cwd: this.folder,
      clearEnv: true,
      env: this.#env,
      stdin: "null",
      stdout: output,
      stderr: output,
    });
  }
}

/** Ends the demonstration if something is not as it tells. */
export function expect(holds: boolean, text: string): void {
  if (!holds) throw new Failure(`this was expected and is not so: ${text}`);
}

/** A command as one would type it. */
function typed(command: string[]): string {
  return command.map((word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)
    .join(" ");
}

function bold(text: string): string {
  return hasColours() ? `\x1b[1m${text}\x1b[0m` : text;
}

function dim(text: string): string {
  return hasColours() ? `\x1b[2m${text}\x1b[0m` : text;
}

function hasColours(): boolean {
  return !Deno.noColor && Deno.stdout.isTerminal();
}
