import { play, titleOf } from "./crash.ts";
import { RESUME_CASES } from "./pause_cases.ts";

for (const each of RESUME_CASES) Deno.test(titleOf(each), () => play(each));
