/** Where progress is shown, and how: a terminal has one line that is drawn again and again, everything else gets lines. */
export type ProgressPlace =
  | { kind: "terminal"; columns(): number; write(text: string): void }
  | { kind: "lines"; note(line: string): void };

/** Between two lines, or two drawings of one, in milliseconds. */
const LINE_PAUSE_MS = 1000;
const DRAWING_PAUSE_MS = 100;

/** Back to the line's begin, and clear it; ECMA-48, EL. */
const CLEAR = "\r\x1b[K";

/** Shows how something goes on. Nothing of it is left on a terminal at the end. */
export class ProgressLine {
  readonly #place: ProgressPlace;
  #shownAt = -Infinity;
  #isDrawn = false;

  constructor(place: ProgressPlace) {
    this.#place = place;
  }

  /** Something has been reached: shown at once. @param lineFor gives the line for so many columns */
  reached(lineFor: (columns: number) => string): void {
    this.#show(lineFor(this.#columns()));
  }

  /** Something goes on: shown once in a while. @param lineFor as above */
  goesOn(lineFor: (columns: number) => string): void {
    const pause = this.#place.kind === "terminal" ? DRAWING_PAUSE_MS : LINE_PAUSE_MS;
    if (performance.now() - this.#shownAt < pause) return;
    this.#show(lineFor(this.#columns()));
  }

  /** Takes the line away, so that something else can be written. */
  clear(): void {
    if (this.#place.kind === "terminal" && this.#isDrawn) this.#place.write(CLEAR);
    this.#isDrawn = false;
  }

  #columns(): number {
    // The last column stays free: some terminals begin a new line there.
    return this.#place.kind === "terminal" ? Math.max(this.#place.columns() - 1, 1) : Infinity;
  }

  #show(line: string): void {
    this.#shownAt = performance.now();
    if (this.#place.kind === "lines") return this.#place.note(line);
    this.#place.write(CLEAR + line);
    this.#isDrawn = true;
  }
}
