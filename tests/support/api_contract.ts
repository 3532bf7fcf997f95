import assert from "node:assert/strict";
import { Ajv2020 } from "ajv/dist/2020.js";
import type * as z from "zod";
import { matchRoutes } from "../../lib/agent/api/routes.ts";
import { errorResult, healthResult } from "../../lib/agent/api/schemas.ts";
import type { Agent } from "./agent.ts";
import type { Answer, Request } from "./agent_client.ts";

/** A path of the document with what it says of each method. */
type Operations = Record<string, { responses: Record<string, { content: Record<string, unknown> }> }>;

/**
 * Asks an agent, and sees that each answer is one that its own OpenAPI document describes, and has nothing that its
 * schemas do not know.
 */
export class ApiContract {
  // deno-lint-ignore no-explicit-any -- a document of somebody else's schema
  readonly document: any;
  readonly #agent: Agent;
  readonly #ajv = new Ajv2020({ strict: false, validateSchema: false });

  private constructor(agent: Agent, document: unknown) {
    this.#agent = agent;
    this.document = document;
    this.#ajv.addSchema(document as Record<string, unknown>, "openapi");
  }

  static async of(agent: Agent): Promise<ApiContract> {
    return new ApiContract(agent, (await agent.get("/openapi.json")).json);
  }

  get(path: string): Promise<Answer> {
    return this.ask({ path });
  }

  post(path: string, body: unknown = {}): Promise<Answer> {
    return this.ask({ method: "POST", path, body });
  }

  async ask(request: Request): Promise<Answer> {
    const answer = await this.#agent.ask(request);
    this.check(request, answer);
    return answer;
  }

  /** @throws {AssertionError} when an answer is not as the document, or the schemas, have it */
  check({ method = "GET", path }: Request, answer: Answer): void {
    const label = `${method} ${path}: ${answer.status} ${answer.body}`;
    assert.equal(answer.headers.get("content-type"), "application/json", label);
    assert.match(answer.body, /^[^\n]+\n$/, `${label}: one line`);
    const [bare] = path.split("?");
    const place = this.#placeOf(method, bare!, answer.status);
    if (place !== undefined) {
      const fits = this.#ajv.getSchema(`openapi#${place}`);
      assert.ok(fits !== undefined, `${label}: no schema at ${place}`);
      assert.ok(fits(answer.json), `${label}: ${JSON.stringify(fits.errors)}`);
    }
    assert.deepEqual(schemaOf(method, bare!, answer.status).parse(answer.json), answer.json, label);
  }

  /** Where the document has the schema of an answer; undefined for a path or method that it does not have. */
  #placeOf(method: string, path: string, status: number): string | undefined {
    const paths = this.document.paths as Record<string, Operations>;
    const found = Object.keys(paths).find((each) => isPath(each, path));
    const responses = found === undefined ? undefined : paths[found]![method.toLowerCase()]?.responses;
    if (responses === undefined) {
      assert.ok(status >= 400, `${method} ${path} is answered, and is not in the document`);
      return "/components/schemas/Error";
    }
    const name = responses[status] === undefined ? "default" : String(status);
    // deno-lint-ignore no-explicit-any -- as above
    let response: any = responses[name];
    assert.ok(response !== undefined, `${method} ${path}: the document has no answer ${status}`);
    const escaped = found!.replaceAll("~", "~0").replaceAll("/", "~1");
    let place = `/paths/${escaped}/${method.toLowerCase()}/responses/${name}`;
    if (response.$ref !== undefined) {
      place = response.$ref.slice(1);
      response = this.document.components.responses[place.split("/").at(-1)!];
    }
    assert.ok(
      response.content["application/json"] !== undefined,
      `${method} ${path}: no JSON in the document`,
    );
    return encodeURI(`${place}/content/application~1json/schema`);
  }
}

function isPath(template: string, path: string): boolean {
  const [before, after] = template.split("{guest}");
  if (after === undefined) return template === path;
  return path.startsWith(before!) && path.endsWith(after) &&
    /^[^/]+$/.test(path.slice(before!.length, path.length - after.length));
}

function schemaOf(method: string, path: string, status: number): z.ZodType {
  if (path === "/healthz" && method === "GET") return healthResult;
  if (status !== 200) return errorResult;
  const found = matchRoutes(path).find(({ route }) => route.method === method);
  assert.ok(found !== undefined, `${method} ${path} is no way of the interface`);
  return found.route.result;
}
