import { play, titleOf } from "./crash.ts";
import { GC_CASES, STOP_CASES } from "./stop_cases.ts";

for (const each of [...STOP_CASES, ...GC_CASES]) Deno.test(titleOf(each), () => play(each));
