import type { HostUri } from "../config/host_uri.ts";
import { STREAM_SOCKET } from "./conversation.ts";
import type { Forward } from "./destination_program.ts";
import {
  giveToUserOf,
  makeSocketDirectory,
  newSocketDirectory,
  removeSocketDirectory,
} from "./socket_directory.ts";

/** Where the memory of a guest goes through: a socket there, and over ssh one here that leads to it. */
export class StreamPlace {
  /** At the destination; the receiver makes it. */
  readonly directory = newSocketDirectory();
  readonly #here: string | undefined;

  /** @param pid the process that sends @throws {LockvisorError} */
  constructor(uri: HostUri, pid: number) {
    if (uri.kind === "local") return;
    this.#here = newSocketDirectory();
    makeSocketDirectory(this.#here);
    giveToUserOf(this.#here, pid);
  }

  /** The socket that the source's QEMU connects to. */
  get socket(): string {
    return `${this.#here ?? this.directory}/${STREAM_SOCKET}`;
  }

  get forwarded(): { forward?: Forward } {
    if (this.#here === undefined) return {};
    return { forward: { here: this.socket, there: `${this.directory}/${STREAM_SOCKET}` } };
  }

  /** Removes what is on this host: nothing goes through any more. The receiver may have been killed before it did. */
  remove(): void {
    removeSocketDirectory(this.#here ?? this.directory);
  }
}
