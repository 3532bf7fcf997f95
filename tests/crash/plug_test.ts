import { play, playWithoutAttach, titleOf } from "./crash.ts";
import { PLUG_CASES } from "./plug_cases.ts";

for (const each of PLUG_CASES) {
  Deno.test(titleOf(each), () => play(each));
  Deno.test(`${titleOf(each)}, and repeated at once`, () => playWithoutAttach(each));
}
