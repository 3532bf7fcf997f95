import type { World } from "./world.ts";

/** A module that is a driver, but for what is said otherwise. */
export function moduleWith(
  { name = "small", capabilities = {}, create = `() => ({ acquire: ${GRANT} })`, before = "" }: {
    name?: unknown;
    capabilities?: Record<string, unknown> | string;
    create?: string;
    before?: string;
  } = {},
): string {
  const declared = typeof capabilities === "string"
    ? capabilities
    : JSON.stringify({ resources: [], hotplug: false, pause: false, migration: false, ...capabilities });
  return `${before}\nexport default { name: ${
    JSON.stringify(name)
  }, capabilities: ${declared}, create: ${create} };\n`;
}

/** A method `acquire` that grants and locks nothing. */
export const GRANT =
  `async () => ({ outcome: "granted", hold: { locks: [], leaseKeys: [], giveBack() {} } })`;

/** Writes a module into a world's folder of plugins, which nobody else may write. */
export async function writeModule(world: World, text: string, file = "driver.js"): Promise<string> {
  const folder = `${world.directory}/plugins`;
  await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
  await Deno.writeTextFile(`${folder}/${file}`, text);
  await Deno.chmod(`${folder}/${file}`, 0o644);
  return `${folder}/${file}`;
}
