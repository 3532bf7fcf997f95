import { type BrowserContext, chromium, type Page } from "playwright-core";

/** Debian's Chromium, which must not look for updates, nor for anything else of its own. */
const PROGRAM = "/usr/bin/chromium";

const FLAGS = [
  "--no-sandbox", // it refuses to run as root with one
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A browser with a profile of its own, which ends and is removed with the test. */
export class Browser implements AsyncDisposable {
  readonly #profile: string;
  readonly #context: BrowserContext;

  private constructor(profile: string, context: BrowserContext) {
    this.#profile = profile;
    this.#context = context;
  }

  static async open(): Promise<Browser> {
    const profile = await Deno.makeTempDir({ prefix: "lockvisor-test-browser-" });
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: PROGRAM,
      headless: true,
      args: FLAGS,
      locale: "en-GB",
      timezoneId: "UTC",
    });
    return new Browser(profile, context);
  }

  /** A new tab that shows a page, and keeps what went wrong in it. */
  async visit(
    url: string,
    { width = 1280, height = 800, scheme = "light", before }: {
      width?: number;
      height?: number;
      scheme?: "light" | "dark";
      /** Runs in the page, before any script of its own. */
      before?: () => void;
    } = {},
  ): Promise<Visit> {
    const page = await this.#context.newPage();
    if (before !== undefined) await page.addInitScript(before);
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: scheme });
    const visit = new Visit(page, new URL(url).origin);
    await page.goto(url, { waitUntil: "commit" });
    return visit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#context.close();
    await Deno.remove(this.#profile, { recursive: true });
  }
}

/** A page in a tab. */
export class Visit {
  /** What the browser complained about: errors in the console, among them violations of the page's policy. */
  readonly complaints: string[] = [];
  /** Requests that went elsewhere than to the page's own origin. */
  readonly foreignRequests: string[] = [];
  /** Answers that were refusals. */
  readonly refusals: string[] = [];

  constructor(readonly page: Page, origin: string) {
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") this.complaints.push(message.text());
    });
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(`${origin}/`) && !url.startsWith("data:")) this.foreignRequests.push(url);
    });
    page.on("response", (response) => {
      if (response.status() >= 400) this.refusals.push(`${response.status()} ${response.url()}`);
    });
  }
}
