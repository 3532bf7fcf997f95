import { ACCESS_CASES, FINISH_CASES, REPEAT_CASES } from "./access_cases.ts";
import { play, playWithoutAttach, titleOf } from "./crash.ts";

for (const each of [...ACCESS_CASES, ...FINISH_CASES]) Deno.test(titleOf(each), () => play(each));

for (const each of REPEAT_CASES) {
  Deno.test(`${titleOf(each)}, and repeated at once`, () => playWithoutAttach(each));
}
