/** A word as a POSIX shell reads it back, whatever is in it. */
export function shellWord(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A command as a POSIX shell reads it back. */
export function shellWords(command: readonly string[]): string {
  return command.map(shellWord).join(" ");
}
