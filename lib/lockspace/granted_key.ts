import type { GrantedKey } from "../driver/contract.ts";
import { JsonFields, WrongShape } from "../files/json_shape.ts";

/** Reads how keys were granted out of a record or a note: the field `grants`, which older versions do not write. */
export function readGrants(fields: JsonFields): GrantedKey[] {
  const isAbsent = fields.get("grants", (_value): _value is unknown => true, "an array") === undefined;
  return isAbsent ? [] : fields.list("grants", readGrant);
}

/** Reads how one key was granted. @throws {WrongShape} */
export function readGrant(value: unknown): GrantedKey {
  const fields = new JsonFields(value, "a grant");
  const key = fields.text("key");
  if (!/^[0-9a-f]{64}$/.test(key)) throw new WrongShape("a key is not 64 hexadecimal digits");
  return {
    key,
    mode: fields.get("mode", (mode) => mode === "exclusive" || mode === "shared", "exclusive or shared"),
    generation: fields.count("generation"),
  };
}
