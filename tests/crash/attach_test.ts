import { play, titleOf } from "./crash.ts";
import { ATTACH_CASES } from "./attach_cases.ts";

for (const each of ATTACH_CASES) Deno.test(titleOf(each), () => play(each));
