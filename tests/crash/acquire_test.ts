import { play, titleOf } from "./crash.ts";
import { ACQUIRE_CASES } from "./hotplug_cases.ts";

for (const each of ACQUIRE_CASES) Deno.test(titleOf(each), () => play(each));
