import { tail } from "./capture.ts";
import { Failure } from "./failure.ts";

/** How long Deno's download host has to answer at all, so that a silent one does not hang the build. */
const ANSWER_WITHIN_MS = 5_000;

/** How long the download of a runtime (some 40 MB) may take where that host does answer. */
const DOWNLOAD_WITHIN_MS = 10 * 60_000;

/** What came of `deno compile`; without its runtime it cannot work, and `reason` says why it has none. */
export type CompileOutcome = { kind: "made" } | { kind: "no-runtime"; reason: string };

/** One run of `deno compile`: which Deno, its arguments, the folder it runs in, what to add to its environment. */
export interface CompileRun {
  deno: string;
  args: string[];
  cwd: string;
  env?: Record<string, string>;
}

/**
 * Runs `deno compile`. It downloads its runtime when it has none yet, tells the address before it does, and
 * waits without limit: so that address is asked at the same time, and when it keeps silent there is no runtime.
 * Any other failure is thrown.
 */
export async function runCompile({ deno, args, cwd, env = {} }: CompileRun): Promise<CompileOutcome> {
  const ended = new AbortController();
  const command = new Deno.Command(deno, {
    args,
    cwd,
    env: { ...env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", DENO_NO_PACKAGE_JSON: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    signal: ended.signal,
  });
  const child = command.spawn();
  const deadline = setTimeout(() => ended.abort(), DOWNLOAD_WITHIN_MS);
  let text = "";
  let silent = "";
  let asked: Promise<void> | undefined;
  for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    const address = /^Download (https?:\/\/\S+)$/m.exec(text)?.[1];
    if (address === undefined || asked !== undefined) continue;
    asked = whyItIsSilent(address, ended.signal).then((reason) => {
      silent = reason;
      if (reason !== "") ended.abort();
    });
  }
  const { success } = await child.status;
  clearTimeout(deadline);
  const wasStopped = ended.signal.aborted;
  ended.abort();
  await asked;
  if (success) return { kind: "made" };
  if (silent !== "") return { kind: "no-runtime", reason: silent };
  if (wasStopped) return { kind: "no-runtime", reason: "the download took too long" };
  const isDownload = asked !== undefined && text.includes("Setting up base binary");
  if (isDownload) {
    return { kind: "no-runtime", reason: /^ +1: (.*)$/m.exec(text)?.[1] ?? "the download failed" };
  }
  throw new Failure(`deno compile failed:\n${tail(text)}`);
}

/** Why nothing answers at an address, or "" when something does, whatever it says, or when it matters no more. */
async function whyItIsSilent(address: string, noMatter: AbortSignal): Promise<string> {
  const tooLate = AbortSignal.timeout(ANSWER_WITHIN_MS);
  try {
    const answer = await fetch(address, { method: "HEAD", signal: AbortSignal.any([tooLate, noMatter]) });
    await answer.body?.cancel();
    return "";
  } catch (error) {
    if (tooLate.aborted) return `${new URL(address).host} did not answer within ${ANSWER_WITHIN_MS / 1000} s`;
    if (noMatter.aborted) return "";
    const { message, cause } = error as Error;
    return cause instanceof Error ? cause.message : message;
  }
}
