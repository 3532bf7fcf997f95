/** Kills a child process and waits for its end; one that has ended is no failure. */
export async function terminateQuietly(child: Deno.ChildProcess): Promise<void> {
  try {
    child.kill("SIGKILL");
  } catch { /* it has ended */ }
  await child.status;
}
