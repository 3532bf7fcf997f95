import { join } from "node:path";
import { runScript } from "./failure.ts";
import { ROOT } from "./project.ts";
import { ensureCommands } from "./system_packages.ts";

/** Assembler and linker for each machine whose holder is built in. */
const MACHINES = {
  x86_64: { assembler: "as", linker: "ld" },
  aarch64: { assembler: "aarch64-linux-gnu-as", linker: "aarch64-linux-gnu-ld" },
} as const;

type Machine = keyof typeof MACHINES;

/** The holder for a machine, assembled from scripts/holder/MACHINE.s: a whole ELF program of some 500 bytes. */
export async function assembleHolder(machine: Machine): Promise<Uint8Array<ArrayBuffer>> {
  const { assembler, linker } = MACHINES[machine];
  const folder = await Deno.makeTempDir({ prefix: "lockvisor-holder-" });
  try {
    await execute(assembler, ["-o", `${folder}/holder.o`, join(ROOT, "scripts", "holder", `${machine}.s`)]);
    // -n: one segment, readable and executable, without padding to whole pages.
    const options = ["-n", "-s", "--build-id=none", "-z", "noseparate-code"];
    await execute(linker, [...options, "-o", `${folder}/holder`, `${folder}/holder.o`]);
    return await Deno.readFile(`${folder}/holder`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function execute(program: string, args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args, stdout: "null", stderr: "piped" })
    .output();
  if (!success) throw new Error(`${program} failed: ${new TextDecoder().decode(stderr)}`);
}

/** The module that holds the programs, as text. */
export async function holderModule(): Promise<string> {
  const entries: string[] = [];
  for (const machine of Object.keys(MACHINES) as Machine[]) {
    const encoded = btoa(String.fromCharCode(...await assembleHolder(machine)));
    const lines = encoded.match(/.{1,96}/g)!.map((line) => `    "${line}"`);
    entries.push(`  ${machine}:\n${lines.join(" +\n")},\n`);
  }
  return `/** The holder as an ELF program, in base64; made from scripts/holder/ by: deno task holder */\n` +
    `export const HOLDER_PROGRAMS: Record<typeof Deno.build.arch, string> = {\n${entries.join("")}};\n`;
}

/** Where the module lives. */
export const HOLDER_MODULE = join(ROOT, "lib", "carrier", "holder_program.ts");

async function main(): Promise<number> {
  await ensureCommands(Object.values(MACHINES).flatMap(({ assembler, linker }) => [assembler, linker]));
  await Deno.writeTextFile(HOLDER_MODULE, await holderModule());
  return 0;
}

if (import.meta.main) await runScript("assemble_holder", main);
