import type { BlockDriver, ChildUse } from "./block_drivers.ts";

/** A node of QEMU's block layer. */
export interface BlockNode {
  /** What on the command line, or in which image, it comes from; for people. */
  origin: string;
  /** Undefined where QEMU looks for the format by itself, in an image that a guest may have written. */
  driver: { name: string; is: BlockDriver } | undefined;
  readOnly: boolean;
  /** QEMU opens it for writing only when somebody above writes. */
  autoReadOnly: boolean;
  children: { use: ChildUse; node: BlockNode }[];
  /** Where the image begins in its child, in bytes. */
  offset: number;
  leaf: Leaf | undefined;
}

/** What a node without children is. */
export type Leaf =
  /** A file or block device: the absolute path, and the path as QEMU has it. */
  | { kind: "path"; path: string; written: string }
  /** A disk on a network, as `--disk` takes it. */
  | { kind: "network"; name: string; writes: "possible" | "never" }
  /** Nothing to lock; `why` for people. */
  | { kind: "nothing"; why: string }
  /** A disk that another process opens. */
  | { kind: "elsewhere"; why: string };

/** What QEMU has attached to a node. */
export interface Attachment {
  node: BlockNode;
  sharesWrites: boolean;
}

/** All nodes of a command line. */
export class BlockGraph {
  readonly nodes: BlockNode[] = [];
  readonly attachments: Attachment[] = [];
  readonly #byName = new Map<string, BlockNode>();
  readonly #parents = new Map<BlockNode, { use: ChildUse; node: BlockNode }[]>();

  add(node: BlockNode): void {
    this.nodes.push(node);
    for (const { use, node: child } of node.children) {
      this.#parents.set(child, [...this.parentsOf(child), { use, node }]);
    }
  }

  /** Gives a node a name: a node-name, or the id of a `-drive`. */
  name(node: BlockNode, name: string): void {
    this.#byName.set(name, node);
  }

  find(name: string): BlockNode | undefined {
    return this.#byName.get(name);
  }

  parentsOf(node: BlockNode): readonly { use: ChildUse; node: BlockNode }[] {
    return this.#parents.get(node) ?? [];
  }
}
