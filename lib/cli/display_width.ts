import { eastAsianWidth } from "get-east-asian-width";

/**
 * Columns that a text takes on a terminal: two for wide characters, none for marks that combine. The expression
 * is no literal: V8 checks literals with Unicode properties while it loads the program, which took 20 ms.
 */
export function displayWidth(text: string): number {
  const combining = new RegExp("\\p{Mark}|\\u200d|\\ufe0f", "gu");
  let width = 0;
  for (const character of text.replace(combining, "")) width += eastAsianWidth(character.codePointAt(0)!);
  return width;
}
