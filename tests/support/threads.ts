/** How many threads a process has, by proc_pid_status(5). */
export function threadsOf(pid: number): number {
  return Number(/^Threads:\s+(\d+)$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]);
}
