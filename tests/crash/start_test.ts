import { play, titleOf } from "./crash.ts";
import { START_CASES } from "./start_cases.ts";

for (const each of START_CASES) Deno.test(titleOf(each), () => play(each));
