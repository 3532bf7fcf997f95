import { ACCESS_CASES, FINISH_CASES } from "./access_cases.ts";
import { play, playWithoutAttach, titleOf } from "./crash.ts";

for (const each of ACCESS_CASES) Deno.test(titleOf(each), () => play(each));

for (const each of ACCESS_CASES.filter(({ passage = 1 }) => passage > 1)) {
  Deno.test(`${titleOf(each)}, and repeated at once`, () => playWithoutAttach(each));
}

for (const each of FINISH_CASES) Deno.test(titleOf(each), () => play(each));
