import type { Invocation } from "./parse.ts";
import { LockvisorError } from "../errors.ts";
import { bashScript } from "./completion_bash.ts";
import { fishScript } from "./completion_fish.ts";
import { zshScript } from "./completion_zsh.ts";
import type { CliContext } from "./context.ts";
import type { CommandDefinition } from "./definition.ts";

const SCRIPTS = new Map<string, (commands: readonly CommandDefinition[]) => string>([
  ["bash", bashScript],
  ["zsh", zshScript],
  ["fish", fishScript],
]);

/** `lockvisor completion`: print a shell's completion script, made from the definitions of the commands. */
export function run(
  { arguments: [shell] }: Invocation,
  context: CliContext,
  commands: readonly CommandDefinition[],
): number {
  const script = SCRIPTS.get(shell!);
  if (script === undefined) {
    const shells = [...SCRIPTS.keys()].join(", ");
    throw new LockvisorError("usage", `completion: "${shell}" is none of the shells: ${shells}`);
  }
  context.out(script(commands));
  return 0;
}
