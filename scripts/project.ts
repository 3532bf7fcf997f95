import { dirname, join } from "node:path";

/** The project's folder: scripts work from any working directory. */
export const ROOT = dirname(import.meta.dirname!);

/** Everything that a build makes; git ignores it. */
export const DIST = join(ROOT, "dist");

/** What may be used again by a later build: the checked runtime, the benchmark's empty program. */
export const CACHE = join(DIST, ".cache");

/** The program, for the machine that builds it. */
export const BINARY = join(DIST, "lockvisor");

/** The same program with armed failpoints, for the tests that kill it. */
export const FAILPOINT_BINARY = join(DIST, "lockvisor-failpoints");
