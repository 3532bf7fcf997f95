import type * as z from "zod";
import { LockvisorError } from "../../errors.ts";
import type { HttpHandler, HttpRequest, HttpResponse } from "../../http/message.ts";
import { VERSION } from "../../version.ts";
import { hostStatus } from "../../host_lock.ts";
import type { Agent } from "../agent.ts";
import type { Metrics } from "../metrics.ts";
import { errorResponse, jsonResponse, NotThere } from "./api_error.ts";
import { beginningOf, eventStream } from "./event_stream.ts";
import { openApiDocument } from "./openapi.ts";
import { type Audience, matchRoutes } from "./routes.ts";
import { eventsQuery } from "./schemas.ts";

/** What answers with. `audience`: over what the requests come. */
export interface ApiOptions {
  agent: Agent;
  metrics: Metrics;
  audience: Audience;
  connections(): number;
  /** What stands at `/`, where there is a page. */
  page?: () => HttpResponse;
  /** Names that this server may be called by (the field Host); a page elsewhere must not reach it under its own name. */
  isOwnName?: (host: string) => boolean;
}

/** An answer and the name under which it is counted. */
interface Answer {
  route: string;
  response: HttpResponse;
}

/** How much of what is wrong with a request is told, in characters. */
const LONGEST_REASON = 200;

/** Answers requests. */
export function apiHandler(options: ApiOptions): HttpHandler {
  return async (request) => {
    const begun = performance.now();
    const { route, response } = await answer(options, request);
    options.metrics.countRequest(route, response.status, (performance.now() - begun) / 1000);
    return response;
  };
}

async function answer(options: ApiOptions, request: HttpRequest): Promise<Answer> {
  const host = request.headers.get("host") ?? "";
  if (options.isOwnName !== undefined && !options.isOwnName(host)) {
    return { route: "none", response: failed("permission", `this is not "${host}"; ask by an address`, 421) };
  }
  return plain(options, request) ?? await routed(options, request);
}

/** What is no JSON, or has no schema. */
function plain(options: ApiOptions, request: HttpRequest): Promise<Answer> | undefined {
  const { path } = request;
  const give = PLAIN[path];
  if (give === undefined || (path === "/" && options.page === undefined)) return undefined;
  return guarded(path, async () => {
    if (!isReading(request.method)) return notAllowed(request.method, path, ["GET"]);
    return await give(options, request);
  });
}

const PLAIN: Record<
  string,
  (options: ApiOptions, request: HttpRequest) => HttpResponse | Promise<HttpResponse>
> = {
  "/": ({ page }) => page!(),
  "/healthz": ({ agent }) => {
    const isWell = agent.health === "well";
    const { records, bereft } = agent;
    const facts = { status: isWell ? "ok" : "late", version: VERSION, guests: records.length, bereft };
    return jsonResponse(isWell ? 200 : 503, facts);
  },
  "/metrics": async ({ agent, metrics, connections }) => {
    const { guests } = await hostStatus(agent.session);
    const body = await metrics.text({ guests, connections: connections() });
    return { status: 200, headers: { "content-type": metrics.contentType }, body };
  },
  "/openapi.json": () => jsonResponse(200, openApiDocument()),
  "/v1/events": ({ agent }, { headers, query, signal }) => {
    const wanted = checked(eventsQuery, queryObject(query), "query");
    return eventStream(agent.events, beginningOf(headers, wanted), signal);
  },
};

async function routed({ agent, audience }: ApiOptions, request: HttpRequest): Promise<Answer> {
  const { method, path } = request;
  const matched = matchRoutes(path);
  const found = matched.find(({ route }) =>
    route.method === method || (route.method === "GET" && method === "HEAD")
  );
  if (found === undefined) {
    return {
      route: "none",
      response: matched.length > 0
        ? notAllowed(method, path, matched.map(({ route }) => route.method))
        : errorResponse(new NotThere("usage", `there is nothing at ${path}; see: GET /openapi.json`)),
    };
  }
  const { route, guest } = found;
  return await guarded(route.path, async () => {
    if (route.audience === "socket" && audience !== "socket") {
      throw new LockvisorError("permission", `${method} ${path} changes something: ask over the unix socket`);
    }
    const query = checked(route.query, queryObject(request.query), "query");
    const body = route.body === undefined ? undefined : bodyOf(request, route.body);
    if (body instanceof BodyFault) return body.response;
    return jsonResponse(200, await route.run({ agent, signal: request.signal, guest, body, query }));
  });
}

async function guarded(route: string, respond: () => Promise<HttpResponse>): Promise<Answer> {
  try {
    return { route, response: await respond() };
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    return { route, response: errorResponse(error) };
  }
}

/** A body that is no JSON: the answer says so. */
class BodyFault {
  constructor(readonly response: HttpResponse) {}
}

function bodyOf({ headers, body }: HttpRequest, schema: z.ZodType): unknown {
  if (body.length === 0) return checked(schema, {}, "body");
  const type = headers.get("content-type") ?? "";
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    const text = `the body's type is "${type}"; send it with: Content-Type: application/json`;
    return new BodyFault(failed("usage", text, 415));
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return new BodyFault(failed("usage", `the body is not JSON: ${shortened(reason)}`, 400));
  }
  return checked(schema, value, "body");
}

/** @throws {LockvisorError} `data`, naming the first thing that is wrong */
function checked<Schema extends z.ZodType>(schema: Schema, value: unknown, what: string): z.infer<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const place = [what, ...issue!.path.map(String)].join(".");
  throw new LockvisorError("data", `${place}: ${lowerFirst(shortened(issue!.message))}`);
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

/** A message may name as many fields as a body has. */
function shortened(text: string): string {
  return text.length <= LONGEST_REASON ? text : `${text.slice(0, LONGEST_REASON)}…`;
}

/** Each name once; more are more than anybody asked for. */
function queryObject(query: URLSearchParams): Record<string, string> {
  const names = [...query.keys()];
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) throw new LockvisorError("data", `query: "${twice}" is given twice`);
  return Object.fromEntries(query);
}

function isReading(method: string): boolean {
  return method === "GET" || method === "HEAD";
}

function notAllowed(method: string, path: string, allowed: readonly string[]): HttpResponse {
  const { status, body, headers } = failed("usage", `${method} is nothing that ${path} knows`, 405) as {
    status: number;
    body: string;
    headers: Record<string, string>;
  };
  const methods = allowed.flatMap((each) => each === "GET" ? ["GET", "HEAD"] : each);
  return { status, body, headers: { ...headers, allow: methods.join(", ") } };
}

function failed(code: "usage" | "permission", message: string, status: number): HttpResponse {
  return errorResponse(new LockvisorError(code, message), status);
}
