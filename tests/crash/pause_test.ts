import { play, titleOf } from "./crash.ts";
import { PAUSE_CASES } from "./pause_cases.ts";

for (const each of PAUSE_CASES) Deno.test(titleOf(each), () => play(each));
