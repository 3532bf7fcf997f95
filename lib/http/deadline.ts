/**
 * A deadline that is set anew all the time and hardly ever passes. A timer costs more than the rest of a small request,
 * so one that rings too early is left alone, and looks at the clock when it rings.
 */
export class Deadline {
  readonly #late: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** When the timer rings, and when it should, by the clock of performance.now(). */
  #rings = Infinity;
  #due = Infinity;
  #hasEnded = false;

  /** `late` is called once for each deadline that passes. */
  constructor(late: () => void) {
    this.#late = late;
  }

  /** Sets the deadline, in milliseconds from now, in place of the one before. */
  set(milliseconds: number): void {
    if (this.#hasEnded) return;
    this.#due = performance.now() + milliseconds;
    if (this.#rings > this.#due) this.#start(milliseconds);
  }

  /** There is no deadline until the next one is set. */
  off(): void {
    this.#due = Infinity;
  }

  /** Lets the timer go; no deadline is set any more. */
  end(): void {
    this.#hasEnded = true;
    clearTimeout(this.#timer);
  }

  #start(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#rings = performance.now() + milliseconds;
    this.#timer = setTimeout(() => this.#ring(), milliseconds);
  }

  #ring(): void {
    this.#rings = Infinity;
    if (this.#due === Infinity) return;
    const left = this.#due - performance.now();
    if (left > 0) return this.#start(left);
    this.#due = Infinity;
    this.#late();
  }
}
