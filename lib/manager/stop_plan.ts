/** How a guest is made to end, from the most polite to the last. */
export type StopMeans = "system_powerdown" | "quit" | "SIGTERM" | "SIGKILL";

/** One attempt, and how long the guest then has to end, in milliseconds. */
export interface StopStep {
  means: StopMeans;
  waitMs: number;
}

/** What the user wants, and what there is to do it with. */
export interface StopWish {
  /** Whether the guest has a QMP socket. */
  monitor: "present" | "absent";
  /** `power-down`: the guest's operating system is asked first, as by its power button. */
  manner: "power-down" | "quit";
  /** How long the first attempt through QMP may take. */
  timeoutMs: number;
  /** How long each later attempt, and SIGTERM, may take before the next. */
  killAfterMs: number;
}

/** A process that is in the kernel (on a hung storage server, say) does not end even by SIGKILL. */
const SIGKILL_WAIT_MS = 10_000;

/** All attempts in their order; the first after which the guest has ended is the last. */
export function stopPlan({ monitor, manner, timeoutMs, killAfterMs }: StopWish): StopStep[] {
  const signals: StopStep[] = [
    { means: "SIGTERM", waitMs: killAfterMs },
    { means: "SIGKILL", waitMs: SIGKILL_WAIT_MS },
  ];
  if (monitor === "absent") return signals;
  if (manner === "quit") return [{ means: "quit", waitMs: timeoutMs }, ...signals];
  return [
    { means: "system_powerdown", waitMs: timeoutMs },
    { means: "quit", waitMs: killAfterMs },
    ...signals,
  ];
}
