import { play, titleOf } from "./crash.ts";
import { RELEASE_CASES } from "./hotplug_cases.ts";

for (const each of RELEASE_CASES) Deno.test(titleOf(each), () => play(each));
