import assert from "node:assert/strict";
import { Validator } from "@seriousme/openapi-schema-validator";
import { openApiDocument } from "../lib/agent/api/openapi.ts";
import { ROUTES } from "../lib/agent/api/routes.ts";

// deno-lint-ignore no-explicit-any -- read as JSON
const document: any = JSON.parse(JSON.stringify(openApiDocument()));

Deno.test("the document is one of OpenAPI 3.1, and its references lead somewhere", async () => {
  const validator = new Validator();
  const result = await validator.validate(structuredClone(document));
  assert.ok(result.valid, JSON.stringify(result.errors, null, 1));
  assert.equal(validator.version, "3.1");
  validator.resolveRefs();
});

Deno.test("the document has every way of the interface, and names no operation twice", () => {
  for (const { method, path, body } of ROUTES) {
    const operation = document.paths[path]?.[method.toLowerCase()];
    assert.ok(operation !== undefined, `${method} ${path}`);
    assert.equal(operation.requestBody !== undefined, body !== undefined, path);
    assert.deepEqual(
      (operation.parameters ?? []).filter((each: { in: string }) => each.in === "path").map((
        { name }: { name: string },
      ) => name),
      [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name),
      path,
    );
  }
  for (const path of ["/healthz", "/metrics", "/v1/events", "/openapi.json"]) {
    assert.ok(document.paths[path]?.get !== undefined, path);
  }
  // deno-lint-ignore no-explicit-any -- as above
  const names = Object.values<any>(document.paths).flatMap((path) => Object.values<any>(path))
    .map(({ operationId }) => operationId);
  assert.equal(new Set(names).size, names.length, names.join(" "));
});
