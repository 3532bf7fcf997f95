import { type Refused, refused } from "./message.ts";

/** A token, RFC 9110, section 5.6.2: methods and names of header fields. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** A field's value, RFC 9110, section 5.5: no control characters but the tabulator; bytes above 127 are let through. */
// deno-lint-ignore no-control-regex
const VALUE = /^[^\x00-\x08\x0a-\x1f\x7f]*$/;

export function isToken(text: string): boolean {
  return TOKEN.test(text);
}

/** Whether a byte may stand in a token. */
export function isTokenByte(byte: number): boolean {
  return TOKEN.test(String.fromCharCode(byte));
}

/** One header or trailer field: its name in lower case, its value without the blanks around it. */
export type FieldOutcome = { kind: "field"; name: string; value: string } | Refused;

/** Reads a field line, RFC 9112, section 5. */
export function parseField(line: string): FieldOutcome {
  const colon = line.indexOf(":");
  if (line.startsWith(" ") || line.startsWith("\t")) {
    return refused(400, "a header field goes on in a second line; write it in one");
  }
  if (colon < 0) return refused(400, "a header line has no colon");
  const name = line.slice(0, colon);
  if (!TOKEN.test(name)) return refused(400, "a header field's name has a character that no name may have");
  const value = withoutBlanks(line, colon + 1);
  if (!VALUE.test(value)) return refused(400, "a header field's value has a control character");
  return { kind: "field", name: name.toLowerCase(), value };
}

/** The rest of a line without spaces and tabulators around it; trim() would take away more than those. */
function withoutBlanks(line: string, from: number): string {
  let start = from;
  let end = line.length;
  while (start < end && isBlank(line.charCodeAt(start))) start++;
  while (end > start && isBlank(line.charCodeAt(end - 1))) end--;
  return line.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

/** The members of a comma-separated list, in lower case. */
export function listOf(value: string | undefined): string[] {
  if (value === undefined) return [];
  return value.toLowerCase().split(",").map((member) => member.trim()).filter((member) => member !== "");
}

/** How many characters are made at once: each is an argument of a call. */
const PIECE = 4096;

/** The bytes as text, one character for each (ISO 8859-1): TextDecoder's "latin1" is another code, Windows-1252. */
export function textOf(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += PIECE) {
    const piece = bytes.length <= PIECE ? bytes : bytes.subarray(at, at + PIECE);
    text += String.fromCharCode.apply(null, piece as unknown as number[]);
  }
  return text;
}
