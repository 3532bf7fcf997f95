import type { FailpointName } from "../../lib/failpoint_names.ts";

/** Where `break` is killed. The guest has three keys, and each of them two lock files. */
export const BREAK_CASES: { at: FailpointName; passage: number }[] = [
  { at: "break.audited", passage: 1 },
  { at: "break.counted", passage: 1 },
  { at: "break.file-made", passage: 1 },
  { at: "break.file-made", passage: 2 },
  { at: "break.file-replaced", passage: 1 },
  { at: "break.file-replaced", passage: 2 },
  { at: "break.replaced", passage: 1 },
  { at: "break.counted", passage: 2 },
  { at: "break.file-replaced", passage: 3 },
  { at: "break.replaced", passage: 2 },
];
