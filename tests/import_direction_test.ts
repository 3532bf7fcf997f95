import assert from "node:assert/strict";
import { dirname, join, relative } from "node:path";
import { findTestFiles } from "../scripts/test_files.ts";

const ROOT = dirname(import.meta.dirname!);

/**
 * The folders from the ground up: what runs may import from its own layer and from those before it. A new folder
 * needs a place here. Types vanish when the program is built, so they may point upwards, except where BARRED.
 */
const LAYERS: readonly (readonly string[])[] = [
  ["deno.json"],
  ["lib/errors.ts", "lib/access.ts", "lib/version.ts", "lib/failpoint_names.ts"],
  ["lib/failpoint.ts", "lib/failpoint_armed.ts"],
  ["lib/files", "lib/libc", "lib/http"],
  ["lib/process", "lib/identity", "lib/image"],
  ["lib/qmp", "lib/qemu", "lib/config", "lib/lockspace"],
  ["lib/driver", "lib/carrier"],
  ["plugins"],
  ["lib/manager"],
  ["lib/domain_lock.ts", "lib/domain_migration.ts", "lib/host_lock.ts"],
  ["lib/doctor", "lib/past_guest.ts", "lib/host_session.ts"],
  ["lib/guest_stop.ts", "lib/host_migrations.ts", "lib/disk_plug"],
  ["lib/reconcile"],
  ["lib/disk_jobs"],
  ["lib/guest_reconcile.ts"],
  ["lib/migration"],
  ["lib/report"],
  ["lib/agent"],
  ["lib/cli"],
  ["main.ts"],
];

/** What not even a type may cross. */
const BARRED: { from: string; to: string; except?: string; why: string }[] = [
  { from: "plugins", to: "lib/cli", why: "a driver serves every front end" },
  { from: "plugins", to: "lib/manager", why: "a driver knows its contract only" },
  { from: "lib/cli", to: "plugins", why: "drivers are found by name, in the registry" },
  {
    from: "lib",
    to: "plugins",
    except: "lib/manager/registry.ts",
    why: "the registry alone lists the drivers",
  },
  { from: "lib/agent", to: "plugins", why: "drivers are found by name, in the registry" },
  { from: "lib/agent", to: "lib/cli", why: "the command line is another front end" },
  ...["lib/lockspace", "lib/carrier", "lib/libc", "lib/qmp", "lib/manager/lock_manager.ts"].map((to) => ({
    from: "lib/cli",
    to,
    why: "the command line uses the sequences of domain_lock.ts and host_lock.ts, and nothing below them",
  })),
  { from: "lib/driver", to: "lib/manager", why: "the contract does not depend on who uses it" },
  { from: "lib", to: "main.ts", why: "main.ts is the program, not a module" },
];

interface Import {
  /** The importing file, from the project's folder. */
  from: string;
  /** What it imports: a file of the project, or a name from outside as it is written. */
  to: string;
  kind: "value" | "type" | "lazy";
}

/** All imports and re-exports of a module. */
function importsOf(file: string, text: string): Import[] {
  const code = text.replaceAll(/^\s*(\/\/|\*|\/\*).*$/gm, "");
  const statements = /^(?:import|export)\b([^"';]*?)\bfrom\s+"([^"]+)"|^import\s+"([^"]+)"/gm;
  const found = [...code.matchAll(statements)].map(([, clause = "", named, bare]): Import => {
    return { from: file, to: target(file, (named ?? bare)!), kind: isTypeOnly(clause) ? "type" : "value" };
  });
  const lazy = [...code.matchAll(/\bimport\(\s*"([^"]+)"/g)].map(([, name]): Import => {
    return { from: file, to: target(file, name!), kind: "lazy" };
  });
  return [...found, ...lazy];
}

/** `import type …`, or braces in which every name has `type` in front. */
function isTypeOnly(clause: string): boolean {
  if (/^\s*type\b/.test(clause)) return true;
  const names = /^\s*\{([^}]*)\}\s*$/.exec(clause)?.[1];
  return names !== undefined && names.split(",").every((name) => /^\s*(type\s.*)?$/s.test(name));
}

function target(from: string, name: string): string {
  return name.startsWith(".") ? join(dirname(from), name) : name;
}

/** All modules of the program, tests left out. */
function modules(): string[] {
  const within = (folder: string): string[] =>
    Array.from(Deno.readDirSync(join(ROOT, folder))).flatMap(({ name, isDirectory }) =>
      isDirectory ? within(join(folder, name)) : name.endsWith(".ts") ? [join(folder, name)] : []
    );
  const tests = new Set(["lib", "plugins"].flatMap((folder) => findTestFiles(join(ROOT, folder))));
  return ["main.ts", ...within("lib"), ...within("plugins")].filter((file) => !tests.has(file)).sort();
}

function allImports(): Import[] {
  return modules().flatMap((file) => importsOf(file, Deno.readTextFileSync(join(ROOT, file))));
}

function isIn(file: string, place: string): boolean {
  return file === place || file.startsWith(`${place}/`);
}

function layerOf(file: string): number {
  return LAYERS.findIndex((layer) => layer.some((place) => isIn(file, place)));
}

function isOwn(name: string): boolean {
  return /\.(ts|json)$/.test(name) && !name.includes(":");
}

Deno.test("imports are read out of every form of statement", () => {
  const text = [
    `import a from "./a.ts";`,
    `import type { B } from "./b.ts";`,
    `import { type C, type D } from "../c.ts";`,
    `import { type E, f } from "./e.ts";`,
    `import {\n  type G,\n  type H,\n} from "./g.ts";`,
    `export { i } from "./i.ts";`,
    `export type { J } from "./j.ts";`,
    `export * from "./k.ts";`,
    `import "./l.ts";`,
    `import data from "./m.json" with { type: "json" };`,
    `const { n } = await import("./n.ts");`,
    `type O = import("./o.ts").O;`,
    ` * import { z } from "./comment.ts";`,
    `const text = "from \\"./string.ts\\"";`,
    `import * as p from "node:path";`,
  ].join("\n");
  assert.deepEqual(importsOf("lib/x/y.ts", text).map(({ to, kind }) => `${kind} ${to}`), [
    "value lib/x/a.ts",
    "type lib/x/b.ts",
    "type lib/c.ts",
    "value lib/x/e.ts",
    "type lib/x/g.ts",
    "value lib/x/i.ts",
    "type lib/x/j.ts",
    "value lib/x/k.ts",
    "value lib/x/l.ts",
    "value lib/x/m.json",
    "value node:path",
    "lazy lib/x/n.ts",
    "lazy lib/x/o.ts",
  ]);
});

Deno.test("every module has a layer", () => {
  const files = [...modules(), "deno.json"];
  assert.deepEqual(files.filter((file) => layerOf(file) < 0), [], "give its folder a place in LAYERS");
});

Deno.test("what runs imports downwards only", () => {
  const upwards = allImports().filter(({ from, to, kind }) =>
    kind !== "type" && isOwn(to) && layerOf(from) >= 0 && layerOf(to) > layerOf(from)
  );
  assert.deepEqual(upwards.map(({ from, to }) => `${from} imports ${to}`), []);
});

for (const { from, to, except, why } of BARRED) {
  Deno.test(`nothing in ${from} imports ${to}${except === undefined ? "" : ` but ${except}`}: ${why}`, () => {
    const crossing = allImports().filter((each) =>
      isIn(each.from, from) && isIn(each.to, to) && each.from !== except
    );
    assert.deepEqual(crossing.map((each) => `${each.from} imports ${each.to}`), []);
  });
}

Deno.test("no modules import each other in a circle", () => {
  const edges = new Map<string, string[]>();
  for (const { from, to, kind } of allImports()) {
    if (kind === "type" || !isOwn(to)) continue;
    edges.set(from, [...edges.get(from) ?? [], to]);
  }
  assert.deepEqual(circleIn(edges), undefined);
});

Deno.test("no folders import each other in a circle", () => {
  const placeOf = (file: string) => LAYERS.flat().find((place) => isIn(file, place)) ?? file;
  const edges = new Map<string, string[]>();
  for (const { from, to, kind } of allImports()) {
    if (kind === "type" || !isOwn(to) || placeOf(from) === placeOf(to)) continue;
    edges.set(placeOf(from), [...edges.get(placeOf(from)) ?? [], placeOf(to)]);
  }
  assert.deepEqual(circleIn(edges), undefined);
});

Deno.test("circles are found", () => {
  assert.equal(circleIn(new Map([["a", ["b", "c"]], ["b", ["c"]]])), undefined);
  assert.deepEqual(circleIn(new Map([["a", ["b"]], ["b", ["c"]], ["c", ["b"]]])), ["b", "c", "b"]);
});

/** One circle, as the way round it. */
function circleIn(edges: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const visit = (file: string, way: string[]): string[] | undefined => {
    if (way.includes(file)) return [...way.slice(way.indexOf(file)), file];
    if (done.has(file)) return undefined;
    for (const next of edges.get(file) ?? []) {
      const circle = visit(next, [...way, file]);
      if (circle !== undefined) return circle;
    }
    done.add(file);
    return undefined;
  };
  for (const file of edges.keys()) {
    const circle = visit(file, []);
    if (circle !== undefined) return circle;
  }
  return undefined;
}

Deno.test("what comes from outside is the runtime's own, or is named in deno.json", () => {
  const { imports } = JSON.parse(Deno.readTextFileSync(join(ROOT, "deno.json"))) as {
    imports: Record<string, string>;
  };
  const outside = allImports().filter(({ to }) => !isOwn(to));
  const unknown = outside.filter(({ to }) => !to.startsWith("node:") && !Object.hasOwn(imports, to));
  assert.deepEqual(unknown.map(({ from, to }) => `${from} imports ${to}`), []);
  for (const source of Object.values(imports)) {
    assert.match(
      source,
      /^npm:(@[^@/]+\/)?[^@]+@\d+\.\d+\.\d+$/,
      "an exact version from the npm registry: JSR may be out of reach",
    );
  }
});

Deno.test("every file that is imported is there, by the path as it is written", () => {
  for (const { from, to } of allImports().filter(({ to }) => isOwn(to))) {
    assert.ok(!relative(".", to).startsWith(".."), `${from} imports ${to}, outside of the project`);
    assert.ok(Deno.statSync(join(ROOT, to)).isFile, `${from} imports ${to}`);
  }
});

/** What only one place may do, however easy it would be elsewhere. */
const RESERVED: { what: RegExp; place: string; why: string }[] = [
  { what: /\bDeno\.exit\(/, place: "main.ts", why: "handlers that exit cannot be tested" },
  { what: /\bDeno\.dlopen\(/, place: "lib/libc", why: "calls of the C library are to be found in one place" },
  { what: /\bDeno\.args\b/, place: "main.ts", why: "commands get their arguments parsed" },
];

for (const { what, place, why } of RESERVED) {
  Deno.test(`${what.source} stands in ${place} only: ${why}`, () => {
    const using = modules().filter((file) => what.test(Deno.readTextFileSync(join(ROOT, file))));
    assert.deepEqual(using.filter((file) => !isIn(file, place)), []);
    assert.ok(using.length > 0, "else this test is of no use any more");
  });
}

Deno.test("nothing relies on `using`: bundling with --minify drops the disposal of a variable that is used once", () => {
  const relying = modules().filter((file) =>
    /^\s*(await )?using [a-z]/m.test(Deno.readTextFileSync(join(ROOT, file)))
  );
  assert.deepEqual(relying, []);
});

Deno.test("no module exports a variable that changes: where the build makes a script of the start, its first value stays", () => {
  const changing = modules().filter((file) =>
    /^export (let|var)\b/m.test(Deno.readTextFileSync(join(ROOT, file)))
  );
  assert.deepEqual(changing, []);
});
