// Tries to get both slots of each of some keys, as a start does, again and again until its standard input ends, and then
// tells as JSON when it had them, in milliseconds, with how many attempts: LOCKSPACE exclusive|shared PAUSE-MS KEY …
const [lockspace, mode, pause, ...keys] = Deno.args as [string, string, string, ...string[]];
const paths = [...keys].sort().flatMap((key) => ["a", "b"].map((slot) => `${lockspace}/${key}.${slot}`));
const had: { from: number; to: number }[] = [];
let attempts = 0;
let isTrying = true;
Deno.stdin.read(new Uint8Array(1)).then(() => isTrying = false);
console.log("ready");

/** The same clock in every process. */
function now(): number {
  return performance.timeOrigin + performance.now();
}

function attempt(): void {
  const files: Deno.FsFile[] = [];
  try {
    for (const path of paths) {
      const file = Deno.openSync(path, { read: true, write: true });
      files.push(file);
      if (!file.tryLockSync(mode === "exclusive")) return;
    }
    const from = now();
    // Who reads has the disk for a while, and refuses others for that long.
    while (mode === "shared" && now() < from + 1);
    had.push({ from, to: now() });
  } finally {
    for (const file of files.reverse()) file.close();
  }
}

while (isTrying) {
  // Between two turns of the loop the end is looked for.
  for (let turn = 0; turn < (pause === "0" ? 20 : 1); turn++) {
    attempt();
    attempts++;
  }
  await new Promise((resolve) => setTimeout(resolve, Number(pause)));
}
console.log(JSON.stringify({ attempts, had }));
