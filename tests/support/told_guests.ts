import { sha256Hex } from "../../lib/identity/digest.ts";
import type { ToldGuest } from "./contract_agent.ts";

type ToldResource = ToldGuest["resources"][number];

/** A resource as the agent tells it; the same name is the same resource. */
export function toldResource(name: string, difference: Partial<ToldResource> = {}): ToldResource {
  const keys = [`path:${name}`, `inode:${name}`].map(sha256Hex);
  return { type: "disk", name, access: "exclusive", keys, locked: true, ...difference };
}

/** A guest as the agent tells it: running, with all its locks. */
export function toldGuest(
  name: string,
  resources: ToldResource[] = [],
  difference: Partial<ToldGuest> = {},
): ToldGuest {
  const digest = sha256Hex(name);
  const keys = 1 + resources.reduce((sum, { keys }) => sum + keys.length, 0);
  const open = resources.reduce((sum, { keys, locked }) => sum + (locked === false ? keys.length : 0), 0);
  return {
    uuid: digest.slice(0, 32).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-"),
    name,
    id: null,
    state: "running",
    plugin: "sync-manager",
    pid: 1000 + Number.parseInt(digest.slice(0, 4), 16),
    since: "2026-11-22T20:14:03Z",
    resources,
    locks: { held: keys - open, unknown: 0, lost: 0, total: keys },
    ...difference,
  };
}
