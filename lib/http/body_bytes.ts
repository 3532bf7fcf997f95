const NOTHING = new Uint8Array(0);

/** What a body that comes in pieces starts with, in bytes. */
const FIRST_ROOM = 1024;

/**
 * Collects a body. What it takes up grows with what has come in, not with what a client says will come, nor with the
 * number of pieces.
 */
export class BodyBytes {
  #room = NOTHING;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Copies the next part. */
  add(part: Uint8Array): void {
    const length = this.#length + part.length;
    if (length > this.#room.length) {
      // A body that comes in one piece gets exactly the room that it needs.
      const wanted = this.#length === 0 ? part.length : Math.max(FIRST_ROOM, length, this.#room.length * 2);
      const room = new Uint8Array(wanted);
      room.set(this.#room.subarray(0, this.#length));
      this.#room = room;
    }
    this.#room.set(part, this.#length);
    this.#length = length;
  }

  /** The body, which is nobody else's. */
  whole(): Uint8Array {
    return this.#room.length === this.#length ? this.#room : this.#room.slice(0, this.#length);
  }
}
