import { playWithoutAttach, titleOf } from "./crash.ts";
import { REPEAT_CASES } from "./repeat_cases.ts";

for (const each of REPEAT_CASES) {
  Deno.test(`${titleOf(each)}, and repeated at once`, () => playWithoutAttach(each));
}
