/** The holders of a guest, by what their command line says; a zombie is none. */
export function holders(guest: number): number[] {
  const pids = Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name)).filter((pid) => pid > 0);
  return pids.filter((pid) => {
    try {
      return Deno.readTextFileSync(`/proc/${pid}/cmdline`).endsWith(` (pid ${guest})\0`) &&
        !/\) [ZX] /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
    } catch {
      return false; // it has ended
    }
  });
}
