import { sha256Hex } from "../identity/digest.ts";
import { PAGE } from "./page_text.ts";

/** What answers `GET /`. */
export interface StatusPage {
  body: string;
  headers: Record<string, string>;
}

let page: StatusPage | undefined;

/**
 * The status page and the headers that go with it. The policy (Content Security Policy Level 3) lets run what is in
 * the page and nothing else: whatever a guest's name may do to it, no foreign script runs and nothing is sent away.
 */
export function statusPage(): StatusPage {
  page ??= {
    body: PAGE,
    headers: {
      "Content-Type": "text/html; charset=utf-8",
      "Content-Security-Policy": policyFor(PAGE),
      "X-Content-Type-Options": "nosniff",
      "Referrer-Policy": "no-referrer",
      "Cache-Control": "no-store",
    },
  };
  return page;
}

function policyFor(html: string): string {
  return [
    "default-src 'none'",
    `script-src ${sources(html, "script")}`,
    `style-src ${sources(html, "style")}`,
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
}

/** What is between the tags of each such element, as the policy names it: by its hash. */
function sources(html: string, tag: "script" | "style"): string {
  const elements = html.matchAll(new RegExp(`<${tag}\\b[^>]*>(.*?)</${tag}>`, "gs"));
  return Array.from(elements, ([, content]) => `'sha256-${base64OfHex(sha256Hex(content!))}'`).join(" ");
}

function base64OfHex(hex: string): string {
  return btoa(hex.replace(/../g, (byte) => String.fromCharCode(Number.parseInt(byte, 16))));
}
