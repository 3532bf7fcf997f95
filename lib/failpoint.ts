import type { FailpointName } from "./failpoint_names.ts";

/**
 * Marks a point at which a test has the program killed, to see what a crash there leaves behind. Here it does nothing,
 * and the bundler leaves nothing of it in the program. The test build has lib/failpoint_armed.ts in the place of this
 * module (scripts/compile.ts).
 */
export function failpoint(_name: FailpointName): void {}
