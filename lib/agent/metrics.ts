import prometheus from "prom-client";
import { type AgentEvent, EVENT_TYPES } from "./event.ts";
import type { AuditReport } from "./audit.ts";
import type { ObservedGuest } from "../manager/guest_view.ts";
import { GUEST_STATES } from "../manager/guest_record.ts";

/** What is counted, for Prometheus. */
export class Metrics {
  readonly #registry = new prometheus.Registry();
  readonly #events;
  readonly #requests;
  readonly #durations;
  readonly #guests;
  readonly #locks;
  readonly #audits;
  readonly #auditSeconds;
  readonly #auditTime;
  readonly #connections;
  readonly #bereft;
  readonly #unprotected;

  constructor(version: string) {
    const registers = [this.#registry];
    this.#events = new prometheus.Counter({
      name: "lockvisor_events_total",
      help: "Events, by type.",
      labelNames: ["type"],
      registers,
    });
    // A counter that begins with its first event hides that event from increase() and rate().
    for (const type of EVENT_TYPES) this.#events.inc({ type }, 0);
    this.#requests = new prometheus.Counter({
      name: "lockvisor_http_requests_total",
      help: "Requests answered, by route and status.",
      labelNames: ["route", "status"],
      registers,
    });
    this.#durations = new prometheus.Histogram({
      name: "lockvisor_http_request_seconds",
      help: "How long requests took, by route.",
      labelNames: ["route"],
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30],
      registers,
    });
    this.#guests = new prometheus.Gauge({
      name: "lockvisor_guests",
      help: "Guests of this host, by state.",
      labelNames: ["state"],
      registers,
    });
    this.#locks = new prometheus.Gauge({
      name: "lockvisor_locks",
      help: "Keys of guests, by what the kernel shows: held, unknown, lost.",
      labelNames: ["evidence"],
      registers,
    });
    this.#bereft = new prometheus.Gauge({
      name: "lockvisor_guests_without_locks",
      help: "Guests that run without a lock that they should have.",
      registers,
    });
    this.#unprotected = new prometheus.Gauge({
      name: "lockvisor_unprotected_resources",
      help:
        "Disks and leases that guests go without the lock on, since somebody else had it (enforce = warn).",
      registers,
    });
    this.#audits = new prometheus.Counter({
      name: "lockvisor_audits_total",
      help: "Looks at the locks of all guests.",
      registers,
    });
    this.#auditSeconds = new prometheus.Histogram({
      name: "lockvisor_audit_seconds",
      help: "How long a look at the locks of all guests took.",
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30],
      registers,
    });
    this.#auditTime = new prometheus.Gauge({
      name: "lockvisor_last_audit_timestamp_seconds",
      help: "When the last look at the locks of all guests ended, in seconds since 1970.",
      registers,
    });
    this.#connections = new prometheus.Gauge({
      name: "lockvisor_http_connections",
      help: "Open connections to the agent.",
      registers,
    });
    const info = new prometheus.Gauge({
      name: "lockvisor_build_info",
      help: "The version that runs.",
      labelNames: ["version"],
      registers,
    });
    info.set({ version }, 1);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  countEvent({ type }: AgentEvent): void {
    this.#events.inc({ type });
  }

  countRequest(route: string, status: number, seconds: number): void {
    this.#requests.inc({ route, status: String(status) });
    this.#durations.observe({ route }, seconds);
  }

  countAudit({ lost }: AuditReport, seconds: number): void {
    this.#audits.inc();
    this.#auditSeconds.observe(seconds);
    this.#auditTime.set(Date.now() / 1000);
    this.#bereft.set(lost);
  }

  /** All figures as Prometheus reads them, with those of this instant. */
  async text(
    { guests, connections }: { guests: readonly ObservedGuest[]; connections: number },
  ): Promise<string> {
    for (const state of GUEST_STATES) {
      this.#guests.set({ state }, guests.filter(({ view }) => view.state === state).length);
    }
    for (const evidence of ["held", "unknown", "lost"] as const) {
      this.#locks.set({ evidence }, guests.reduce((sum, { locks }) => sum + locks[evidence], 0));
    }
    const resources = guests.flatMap(({ view }) => view.resources);
    this.#unprotected.set(resources.filter(({ unprotected }) => unprotected !== undefined).length);
    this.#connections.set(connections);
    return await this.#registry.metrics();
  }
}
