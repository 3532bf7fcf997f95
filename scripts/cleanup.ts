const SIGNALS = [["SIGHUP", 1], ["SIGINT", 2], ["SIGTERM", 15]] as const;

/**
 * A stack of things to undo, undone at the end of the block (`using`) and also when somebody interrupts the
 * script: a half-made program has nearly 100 MB, and a guest of the demonstration would run on.
 */
export function cleanupStack(): DisposableStack {
  const stack = new DisposableStack();
  for (const [signal, number] of SIGNALS) {
    const interrupted = () => {
      stack.dispose();
      Deno.exit(128 + number);
    };
    Deno.addSignalListener(signal, interrupted);
    stack.defer(() => Deno.removeSignalListener(signal, interrupted));
  }
  return stack;
}

/** A new folder of our own (0700), in `parent` or in the system's place for such, that goes away with the stack. */
export function temporaryFolder(
  stack: DisposableStack,
  options: { parent?: string; prefix?: string } = {},
): string {
  const { parent, prefix = "lockvisor-build-" } = options;
  const folder = Deno.makeTempDirSync(parent === undefined ? { prefix } : { dir: parent, prefix });
  stack.defer(() => Deno.removeSync(folder, { recursive: true }));
  return folder;
}
