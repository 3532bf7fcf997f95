import type { IncomingMigration, Migration, OutgoingMigration } from "../driver/migration.ts";
import { JsonFields } from "../files/json_shape.ts";

/** Reads the field `migration` of a record or a note. @throws {WrongShape} */
export function readMigration(fields: JsonFields): { migration?: Migration } {
  const value = fields.get("migration", (_value): _value is unknown => true, "");
  if (value === undefined) return {};
  const own = new JsonFields(value, "the migration");
  const role = own.get("role", (text) => text === "out" || text === "in", "out or in");
  return { migration: role === "out" ? readOutgoing(own) : readIncoming(own) };
}

function readOutgoing(fields: JsonFields): OutgoingMigration {
  return {
    role: "out",
    destination: fields.text("destination"),
    ticketHash: fields.text("ticketHash"),
    expires: fields.text("expires"),
    incomingGuest: fields.get(
      "incomingGuest",
      (text) => text === "unwatched" || text === "held" || text === "let-go",
      "unwatched, held or let-go",
    ),
    before: fields.get("before", (text) => text === "running" || text === "paused", "running or paused"),
    ...readMark(fields, "stopped"),
  };
}

function readIncoming(fields: JsonFields): IncomingMigration {
  const source = fields.object("source");
  return {
    role: "in",
    source: { id: source.text("id"), name: source.text("name") },
    ticketHash: fields.text("ticketHash"),
    ...readMark(fields, "arrived"),
  };
}

function readMark<Name extends string>(fields: JsonFields, name: Name): { [Key in Name]?: true } {
  const mark = fields.get(name, (value) => value === undefined || value === true, "true");
  return (mark === undefined ? {} : { [name]: true }) as { [Key in Name]?: true };
}
