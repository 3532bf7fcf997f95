import { LIBC } from "./syscall.ts";

let trimmer: ReturnType<typeof openTrimmer> | undefined;

function openTrimmer() {
  return Deno.dlopen(LIBC, { malloc_trim: { parameters: ["usize"], result: "i32" } }).symbols;
}

/** Gives memory that nobody uses back to the system, malloc_trim(3). */
export function trimHeap(): void {
  const { malloc_trim } = trimmer ??= openTrimmer();
  malloc_trim(0n);
}
