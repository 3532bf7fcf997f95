import { join, resolve } from "node:path";
import { cleanupStack, temporaryFolder } from "./cleanup.ts";
import { compileLockvisor } from "./compile.ts";
import { describeFailure } from "./failure.ts";
import { readReport } from "./junit.ts";
import { BINARY, FAILPOINT_BINARY, ROOT } from "./project.ts";
import { ensureCommands, searchPath } from "./system_packages.ts";
import { findTestFiles, isThere, NOT_TESTS, TEST_FOLDERS } from "./test_files.ts";

/** What the tests start besides lockvisor. */
const COMMANDS = [
  "qemu-system-x86_64",
  "qemu-img",
  "strace",
  "as",
  "ld",
  "aarch64-linux-gnu-as",
  "aarch64-linux-gnu-ld",
  "ip",
  "flock",
  "setpriv",
  "unshare",
  "losetup",
  "mount",
  "mkfs.ext4",
  "zsh",
  "fish",
  "man",
  "groff",
  "glusterfs",
  "glusterfsd",
  "umount",
  "curl",
  "chromium",
  "systemd-nspawn",
  "debootstrap",
  "nsenter",
  "setsid",
  "dpkg-deb",
  "gzip",
];

/** Files that run at the same time. Each may start several guests, so more would only make deadlines tight. */
const JOBS = "2";

/** A test that hangs must not hang whoever waits for the closing line. */
const ALL_WITHIN_MS = Number(Deno.env.get("LOCKVISOR_TEST_MINUTES") ?? 30) * 60_000;

/** What the closing line says. */
interface Totals {
  passed: number;
  failed: number;
}

/** Whether a test needs the program that can be killed at its failpoints. */
function killsAtFailpoints(file: string): boolean {
  return /^tests\/\w*crash/.test(file) || /from "\.\/crash\//.test(Deno.readTextFileSync(join(ROOT, file)));
}

/**
 * Runs the tests against the compiled program. `args` go to `deno test`; paths among them take the place of
 * all tests. Prints a line for each reason to fail that `deno test` itself does not count: a skipped test, a
 * file in which nothing ran.
 */
async function runTests(args: string[]): Promise<Totals> {
  using stack = cleanupStack();
  const report = join(temporaryFolder(stack, { prefix: "lockvisor-test-" }), "report.xml");
  const paths = pathsAmong(args);
  const folders = TEST_FOLDERS.filter((folder) => isThere(join(ROOT, folder)));
  const started = (paths.length > 0 ? paths : folders).flatMap((path) => findTestFiles(resolve(ROOT, path)));
  if (started.some(killsAtFailpoints)) {
    await compileLockvisor("when-stale", { failpoints: "armed" });
  }
  // What comes after "--" is for the tests themselves.
  const end = args.indexOf("--") < 0 ? args.length : args.indexOf("--");
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "--allow-all",
      "--no-check", // `deno task check` does it, for all files at once
      "--parallel",
      `--ignore=${NOT_TESTS.join(",")}`,
      `--junit-path=${report}`,
      ...args.slice(0, end),
      ...(paths.length > 0 ? [] : folders),
      ...args.slice(end),
    ],
    cwd: ROOT,
    env: {
      LOCKVISOR_BINARY: BINARY,
      LOCKVISOR_FAILPOINT_BINARY: FAILPOINT_BINARY,
      DENO_JOBS: JOBS,
      PATH: searchPath(),
    },
    stdin: "null",
    signal: AbortSignal.timeout(ALL_WITHIN_MS),
  }).spawn();
  const { code, signal } = await child.status;
  if (signal !== null || !isThere(report)) {
    console.log(`deno test gave no report (${signal ?? `exit status ${code}`})`);
    return { passed: 0, failed: 1 };
  }
  return judge({ xml: Deno.readTextFileSync(report), started, code });
}

/** Counts what happened; whatever `deno test` was unhappy about makes at least one failure. */
function judge({ xml, started, code }: { xml: string; started: string[]; code: number }): Totals {
  const tests = readReport(xml);
  const passed = tests.filter(({ outcome }) => outcome === "passed").length;
  let failed = tests.filter(({ outcome }) => outcome === "failed").length;
  for (const { file, name } of tests.filter(({ outcome }) => outcome === "skipped")) {
    console.log(`skipped, which counts as failed: ${file}: ${name}`);
    failed++;
  }
  for (const file of started.filter((file) => !xml.includes(`<testsuite name="./${file}"`))) {
    console.log(`no test ran in ${file}`);
    failed++;
  }
  if (failed === 0 && (code !== 0 || passed === 0)) {
    console.log(code === 0 ? "no test ran" : `deno test ended with exit status ${code}`);
    failed++;
  }
  return { passed, failed };
}

/** The arguments that name files or folders; a value of --filter may look like one and is none. */
function pathsAmong(args: string[]): string[] {
  const own = args.includes("--") ? args.slice(0, args.indexOf("--")) : args;
  return own.filter((arg, at) =>
    !arg.startsWith("-") && own[at - 1] !== "--filter" && isThere(resolve(ROOT, arg))
  );
}

async function main(): Promise<number> {
  let totals: Totals = { passed: 0, failed: 1 };
  let status = 1;
  try {
    await ensureCommands(COMMANDS);
    await compileLockvisor("when-stale");
    totals = await runTests(Deno.args);
    status = totals.failed === 0 ? 0 : 1;
  } catch (error) {
    const failure = describeFailure(error);
    console.log(`test: ${failure.text}`);
    status = failure.status;
  }
  console.log(`${totals.passed} passed, ${totals.failed} failed`);
  return status;
}

if (import.meta.main) Deno.exit(await main());
