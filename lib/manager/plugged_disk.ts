import type { Access } from "../access.ts";
import { isAccess } from "../access.ts";
import { isText, JsonFields } from "../files/json_shape.ts";

/** A disk that is plugged in, or on its way in or out. Written down, so that a call that was cut off can be repeated. */
export interface PluggedDisk {
  /** The id of its device in QEMU. */
  id: string;
  /** The node that the device has. */
  node: string;
  /** Nodes of its chain that are to be closed with it, once it is on its way out. */
  chain?: readonly string[];
  /** What is to be released when it has gone: until it is plugged in, what was locked for it and for nothing before. */
  disks: { name: string; access: Access }[];
  /** What QEMU was told (`blockdev-add`, `device_add`). Records of older versions do not tell. */
  blockdev?: Record<string, unknown>;
  device?: Record<string, unknown>;
}

/** Reads what a record says of one. @throws {WrongShape} */
export function readPluggedDisk(value: unknown): PluggedDisk {
  const fields = new JsonFields(value, "a plugged disk");
  return {
    id: fields.text("id"),
    node: fields.text("node"),
    disks: fields.list("disks", (each) => {
      const disk = new JsonFields(each, "a disk");
      return { name: disk.text("name"), access: disk.get("access", isAccess, "an access") };
    }),
    ...readChain(fields),
    ...toldQemu(fields, "blockdev"),
    ...toldQemu(fields, "device"),
  };
}

function readChain(fields: JsonFields): Pick<PluggedDisk, "chain"> {
  const chain = fields.get("chain", isOptionalTexts, "a list of names");
  return chain === undefined ? {} : { chain };
}

function isOptionalTexts(value: unknown): value is string[] | undefined {
  return value === undefined || (Array.isArray(value) && value.every(isText));
}

function toldQemu<Name extends "blockdev" | "device">(
  fields: JsonFields,
  name: Name,
): Pick<PluggedDisk, Name> {
  const told = fields.get(name, isOptionalObject, "a JSON object");
  return (told === undefined ? {} : { [name]: told }) as Pick<PluggedDisk, Name>;
}

function isOptionalObject(value: unknown): value is Record<string, unknown> | undefined {
  return value === undefined || (typeof value === "object" && value !== null && !Array.isArray(value));
}

/** A list without one id, and with what takes its place. */
export function withPlugged(
  list: readonly PluggedDisk[] | undefined,
  id: string,
  disk: PluggedDisk | undefined,
): PluggedDisk[] {
  return [...(list ?? []).filter((each) => each.id !== id), ...disk === undefined ? [] : [disk]];
}
