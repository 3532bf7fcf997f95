import type * as z from "zod";
import * as operations from "./operations.ts";
import * as schemas from "./schemas.ts";

/** What a request asks for, checked. */
export interface Asked extends operations.Caller {
  /** The guest in the path: a name or a UUID. */
  guest: string;
  // deno-lint-ignore no-explicit-any -- each route's own schema has checked it
  body: any;
  // deno-lint-ignore no-explicit-any -- as body
  query: any;
}

/** Who may ask for it: `anybody` also over TCP, since nothing is changed. */
export type Audience = "anybody" | "socket";

/** One way of the interface that takes and gives JSON. */
export interface Route {
  method: "GET" | "POST";
  /** With `{guest}` where a name or UUID stands. */
  path: string;
  summary: string;
  audience: Audience;
  query: z.ZodType;
  body?: z.ZodType;
  result: z.ZodType;
  run(asked: Asked): Promise<unknown>;
}

/** All ways that take and give JSON, in the order of the document. */
export const ROUTES: readonly Route[] = [
  get("/v1/guests", "All guests of this host, with the locks that the kernel shows", {
    result: schemas.guestsResult,
    run: ({ agent }) => operations.listGuests(agent),
  }),
  get("/v1/guests/{guest}", "One guest, by name or UUID", {
    result: schemas.guestResult,
    run: ({ agent, guest }) => operations.showGuest(agent, guest),
  }),
  get("/v1/locks", "Who has a disk or a lease", {
    query: schemas.locksQuery,
    result: schemas.inspectionResult,
    run: ({ agent, query }) => operations.inspectLocks(agent, query),
  }),
  post("/v1/guests/{guest}/acquire", "Lock disks and leases before a hotplug: all or none", {
    body: schemas.resourcesBody,
    result: schemas.hotplugResult,
    run: ({ guest, body, ...caller }) => operations.acquire(caller, guest, body),
  }),
  post("/v1/guests/{guest}/release", "Give disks and leases up after an unplug", {
    body: schemas.resourcesBody,
    result: schemas.hotplugResult,
    run: ({ guest, body, ...caller }) => operations.release(caller, guest, body),
  }),
  post("/v1/guests/{guest}/pause", "Pause a guest, which keeps its locks unless told otherwise", {
    body: schemas.pauseBody,
    result: schemas.pauseResult,
    run: ({ guest, body, ...caller }) => operations.pause(caller, guest, body),
  }),
  post("/v1/guests/{guest}/resume", "Let a paused guest run on, after its locks are back", {
    body: schemas.resumeBody,
    result: schemas.pauseResult,
    run: ({ guest, body, ...caller }) => operations.resume(caller, guest, body),
  }),
  post("/v1/guests/{guest}/stop", "End a guest, then prove that its locks are free", {
    body: schemas.stopBody,
    result: schemas.stopResult,
    run: ({ guest, body, ...caller }) => operations.stop(caller, guest, body),
  }),
  post("/v1/guests/{guest}/reconcile", "Make a guest's locks what its QEMU has open", {
    body: schemas.reconcileBody,
    result: schemas.reconcileResult,
    run: ({ guest, body, ...caller }) => operations.reconcile(caller, guest, body),
  }),
  post("/v1/guests/{guest}/attach", "Compare a guest with the kernel, and mend what can be mended", {
    body: schemas.attachBody,
    result: schemas.attachResult,
    run: ({ agent, guest }) => operations.attach(agent, guest),
  }),
  post("/v1/attach", "Compare all guests with the kernel, and mend what can be mended", {
    body: schemas.attachBody,
    result: schemas.attachResult,
    run: ({ agent }) => operations.attach(agent, undefined),
  }),
  post("/v1/check", "Whether locks would be granted now; takes nothing", {
    body: schemas.resourcesBody,
    result: schemas.checkResult,
    run: ({ agent, body }) => operations.checkLocks(agent, body),
  }),
];

type Parts = Pick<Route, "result" | "run"> & Partial<Pick<Route, "query" | "body">>;

function get(path: string, summary: string, parts: Parts): Route {
  return { method: "GET", path, summary, audience: "anybody", query: schemas.noQuery, ...parts };
}

function post(path: string, summary: string, parts: Parts): Route {
  return { method: "POST", path, summary, audience: "socket", query: schemas.noQuery, ...parts };
}

/** A request's path, as ways name it; undefined for one that is not written as it should be. */
export interface MatchedRoute {
  route: Route;
  guest: string;
}

/** What a path leads to, by any method. */
export function matchRoutes(path: string): MatchedRoute[] {
  return ROUTES.flatMap((route): MatchedRoute[] => {
    const [before, after] = route.path.split("{guest}");
    if (after === undefined) return path === route.path ? [{ route, guest: "" }] : [];
    if (!path.startsWith(before!) || !path.endsWith(after)) return [];
    const guest = decodeSegment(path.slice(before!.length, path.length - after.length));
    return guest === undefined ? [] : [{ route, guest }];
  });
}

/** One segment of a path, decoded; undefined for none, for several, and for what is no text. */
function decodeSegment(segment: string): string | undefined {
  if (segment === "" || segment.includes("/")) return undefined;
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}
