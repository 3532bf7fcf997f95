/** A node of QEMU's block layer, as `query-named-block-nodes` tells of it. */
export interface OpenNode {
  name: string;
  driver: string;
  readOnly: boolean;
  /** What QEMU calls the file of a node that is one. */
  file: string;
}

/** Who has a node below, and what that lets it do (qapi/block-core.json, XDbgBlockGraphEdge). */
export interface PermissionEdge {
  parent: string;
  /** A device, a block job or an export is no node. */
  parentIs: "node" | "root";
  child: string;
  /** What the child is to its parent: `file`, `backing`, `root` and so on. */
  use: string;
  /** What the parent does with the child. */
  uses: readonly string[];
  /** What the parent lets others do meanwhile. */
  shares: readonly string[];
}

/** What `x-debug-query-block-graph` tells, by the names of nodes. */
export interface PermissionGraph {
  edges: readonly PermissionEdge[];
  /** The driver of each node. */
  drivers: ReadonlyMap<string, string>;
  /** Nodes that were opened for reading only. */
  readOnly: ReadonlySet<string>;
}

/** Reads the reply to `query-named-block-nodes` with `flat`. What is no node is left out. */
export function readNodes(reply: unknown): OpenNode[] {
  return objects(reply).flatMap(({ "node-name": name, drv, ro, file }) =>
    typeof name === "string" && typeof drv === "string"
      ? [{ name, driver: drv, readOnly: ro === true, file: typeof file === "string" ? file : "" }]
      : []
  );
}

/** Reads the reply to `x-debug-query-block-graph`; undefined when it is not in the form that we know. */
export function readPermissionGraph(
  reply: unknown,
  nodes: readonly OpenNode[],
): PermissionGraph | undefined {
  if (typeof reply !== "object" || reply === null) return undefined;
  const { nodes: vertices, edges } = reply as Record<string, unknown>;
  if (!Array.isArray(vertices) || !Array.isArray(edges)) return undefined;
  const byId = new Map(objects(vertices).map((vertex) => [vertex.id, vertex]));
  const read: PermissionEdge[] = [];
  for (const { parent, child, name, perm, "shared-perm": shared } of objects(edges)) {
    const [above, below] = [byId.get(parent), byId.get(child)];
    if (above === undefined || below === undefined || !isTexts(perm) || !isTexts(shared)) return undefined;
    read.push({
      parent: String(above.name ?? ""),
      parentIs: above.type === "block-driver" ? "node" : "root",
      child: String(below.name ?? ""),
      use: String(name),
      uses: perm,
      shares: shared,
    });
  }
  return {
    edges: read,
    drivers: new Map(nodes.map(({ name, driver }) => [name, driver])),
    readOnly: new Set(nodes.flatMap(({ name, readOnly }) => readOnly ? [name] : [])),
  };
}

function objects(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value)
    ? value.filter((each) => typeof each === "object" && each !== null && !Array.isArray(each))
    : [];
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((each) => typeof each === "string");
}
