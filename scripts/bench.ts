import { join } from "node:path";
import { cleanupStack, temporaryFolder } from "./cleanup.ts";
import { compileLockvisor, compileProgram } from "./compile.ts";
import { runScript } from "./failure.ts";
import { BINARY, CACHE, ROOT } from "./project.ts";
import { ensureCommands, searchPath } from "./system_packages.ts";

/** What the benchmarks start besides lockvisor. */
const COMMANDS = ["flock", "unshare", "virtlockd"];

/** A program without a line of code, built as lockvisor is: what remains to be compared is lockvisor's own work. */
const EMPTY_BINARY = join(CACHE, "empty");

/** The least that answers HTTP, built in the same way: what the agent's interface is compared with. */
const BARE_SERVER_BINARY = join(CACHE, "bare-server");

async function compileEmpty(): Promise<void> {
  using stack = new DisposableStack();
  const entry = Deno.makeTempFileSync({ prefix: "lockvisor-empty-", suffix: ".ts" });
  stack.defer(() => Deno.removeSync(entry));
  await compileProgram({ entry, output: EMPTY_BINARY });
}

async function main(): Promise<number> {
  await ensureCommands(COMMANDS);
  // All anew, so that all come from the same Deno by the same way.
  await compileLockvisor("always");
  await compileEmpty();
  await compileProgram({ entry: join(ROOT, "tests/bench/bare_server.ts"), output: BARE_SERVER_BINARY });
  using stack = cleanupStack();
  // Beside the programs, of which copies are to be put there: some hundred MB.
  const copies = temporaryFolder(stack, { parent: CACHE, prefix: "copies-" });
  const hasFiles = Deno.args.some((argument) => argument.endsWith(".ts"));
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: ["bench", "--allow-all", "--no-check", ...Deno.args, ...hasFiles ? [] : ["tests/bench/"]],
    cwd: ROOT,
    env: {
      LOCKVISOR_BINARY: BINARY,
      LOCKVISOR_EMPTY_BINARY: EMPTY_BINARY,
      LOCKVISOR_BARE_SERVER_BINARY: BARE_SERVER_BINARY,
      LOCKVISOR_BENCH_COPIES: copies,
      PATH: searchPath(),
    },
    stdin: "null",
  }).spawn().status;
  return code;
}

if (import.meta.main) await runScript("bench", main);
