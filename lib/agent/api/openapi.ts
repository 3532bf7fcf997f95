import * as z from "zod";
import { VERSION } from "../../version.ts";
import { type Route, ROUTES } from "./routes.ts";
import { errorResult, eventResult, eventsQuery, healthResult } from "./schemas.ts";

/** The interface as an OpenAPI 3.1 document, made from the schemas that check the requests. */
export function openApiDocument() {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of ROUTES) {
    paths[route.path] = { ...paths[route.path], [route.method.toLowerCase()]: operationOf(route) };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "lockvisor",
      version: VERSION,
      summary: "Locks for the disks of virtual machines",
      description:
        "The agent's interface on its unix socket. Errors have the codes of the command line's exit statuses. Over TCP only what is read is served.",
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "http://localhost" }],
    paths: {
      ...paths,
      "/v1/events": {
        get: {
          operationId: "followEvents",
          summary: "Events as they happen (server-sent events); resumable by Last-Event-ID",
          parameters: parametersOf(eventsQuery),
          responses: {
            "200": {
              description: "each event's data is an Event in JSON",
              content: { "text/event-stream": { schema: { $ref: "#/components/schemas/Event" } } },
            },
            default: ERROR,
          },
        },
      },
      "/healthz": {
        get: {
          operationId: "health",
          summary: "Whether the agent does its work: 200, or 503 when looks at the locks are late",
          responses: { "200": content(healthResult, "it does"), "503": content(healthResult, "it does not") },
        },
      },
      "/metrics": {
        get: {
          operationId: "metrics",
          summary: "Figures for Prometheus",
          responses: { "200": { description: "the text format", content: { "text/plain": {} } } },
        },
      },
      "/openapi.json": {
        get: {
          operationId: "describe",
          summary: "This document",
          responses: {
            "200": {
              description: "OpenAPI 3.1",
              content: { "application/json": { schema: { type: "object" } } },
            },
          },
        },
      },
    },
    components: { schemas: { Error: schemaOf(errorResult), Event: schemaOf(eventResult) } },
  };
}

const ERROR = {
  description: "what went wrong, and who stands in the way",
  content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
};

function operationOf({ method, path, summary, query, body, result }: Route) {
  const parameters = [
    ...path.includes("{guest}")
      ? [{
        name: "guest",
        in: "path",
        required: true,
        schema: { type: "string" },
        description: "name or UUID",
      }]
      : [],
    ...parametersOf(query),
  ];
  return {
    operationId: `${method.toLowerCase()}${
      path.replaceAll(/[^a-z]+(.)?/gi, (_, next = "") => next.toUpperCase())
    }`,
    summary,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(body === undefined
      ? {}
      : { requestBody: { content: { "application/json": { schema: schemaOf(body) } } } }),
    responses: { "200": content(result, "done"), default: ERROR },
  };
}

function parametersOf(query: z.ZodType) {
  const { properties = {}, required = [] } = schemaOf(query) as {
    properties?: Record<string, { description?: string }>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...schema }]) => ({
    name,
    in: "query",
    required: required.includes(name),
    schema,
    ...(description === undefined ? {} : { description }),
  }));
}

function content(schema: z.ZodType, description: string) {
  return { description, content: { "application/json": { schema: schemaOf(schema) } } };
}

/** OpenAPI 3.1 takes JSON Schema 2020-12 as it is. */
function schemaOf(schema: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { target: "draft-2020-12", io: "input" });
  return rest;
}
