import { type QmpClient, QmpCommandError } from "../qmp/client.ts";
import { lookAtChains } from "./disk_chain.ts";

/** How long QEMU may take to give a node up, in milliseconds: it frees what had it a moment later. */
const GIVING_UP_MS = 10_000;
const PAUSE_MS = 10;

/**
 * Removes those nodes of a disk that nothing has any more, from the top down: one that was opened by itself stays open
 * otherwise, and one that QEMU has opened along with another is gone with that. What another disk has too stays.
 * @returns a line for each that QEMU does not give up
 */
export async function closeNodes(monitor: QmpClient, leaving: readonly string[]): Promise<string[]> {
  const refused = new Map<string, string>();
  const deadline = performance.now() + GIVING_UP_MS;
  for (;;) {
    const { nodes } = await lookAtChains(monitor, "/");
    const next = leaving.find((node) => nodes.get(node)?.isUsed === false && !refused.has(node));
    if (next === undefined) break;
    try {
      await monitor.execute("blockdev-del", { "node-name": next });
    } catch (error) {
      if (!(error instanceof QmpCommandError)) throw error;
      if (performance.now() > deadline) refused.set(next, error.description);
      else await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
  return [...refused].map(([node, reason]) => `QEMU does not give the node "${node}" up: ${reason}`);
}
