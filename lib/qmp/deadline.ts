/** What came of something that had a deadline. */
export type DeadlineOutcome<T> = { kind: "done"; value: T } | { kind: "late" };

/** Waits for something, but no longer than the given milliseconds. What it throws in time is thrown on. */
export async function withinDeadline<T>(
  awaited: Promise<T>,
  deadlineMs: number,
): Promise<DeadlineOutcome<T>> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<DeadlineOutcome<T>>((resolve) => {
    timer = setTimeout(() => resolve({ kind: "late" }), deadlineMs);
  });
  awaited.catch(() => {}); // what fails too late concerns nobody
  try {
    return await Promise.race([awaited.then((value): DeadlineOutcome<T> => ({ kind: "done", value })), late]);
  } finally {
    clearTimeout(timer);
  }
}
