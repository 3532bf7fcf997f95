import { breathe, element, foreign, icon, nameList, the, timeElement } from "./elements.js";
import { isMatch, stateCounts } from "./holders.js";
import { counted, timeText } from "./words.js";

/** How long the page may be busy at a stretch, in milliseconds. */
const STRETCH_MS = 12;

/** The picture for each kind of lock, by what holders.js calls it. */
const LOCK_ICONS = { held: "closed", lost: "alert", none: "open", unknown: "question" };

/** What is in the list: the view and its element, by the view's key. */
const shown = new Map();

/** Brings the list up to date, a few guests at a time; elements of guests that look the same as before are kept. */
export async function showGuests(views) {
  const list = the("guest-list");
  list.setAttribute("aria-busy", "true");
  the("loading").hidden = true;
  the("empty").hidden = views.length > 0;
  the("filter-line").hidden = views.length === 0;
  showSummary(views);
  let started = performance.now();
  const stay = new Set(views.map(({ key }) => key));
  for (const [key, { item }] of shown) {
    if (stay.has(key)) continue;
    item.remove();
    shown.delete(key);
  }
  let next = list.firstElementChild;
  for (const view of views) {
    if (performance.now() - started > STRETCH_MS) {
      await breathe();
      started = performance.now();
    }
    const item = itemOf(view);
    if (item === next) next = next.nextElementSibling;
    else list.insertBefore(item, next);
  }
  list.setAttribute("aria-busy", "false");
  applyFilter();
}

function itemOf(view) {
  const before = shown.get(view.key);
  const item = before?.item ?? element("li");
  const isSame = before !== undefined && before.view.signature.length === view.signature.length &&
    view.signature.every((part, at) => part === before.view.signature[at]);
  if (!isSame) item.replaceChildren(card(view));
  if (before === undefined) item.hidden = !isMatch(view, the("filter").value.trim());
  shown.set(view.key, { view, item });
  return item;
}

function card(view) {
  const { name, state, lost, resources, locks } = view;
  const facts = [
    ["PID", view.pid],
    ["Since", timeElement(view.since, timeText(view.since))],
    ["Locks", `${locks.held} of ${locks.total}`],
  ];
  if (view.plugin !== "sync-manager") facts.push(["Plugin", foreign(view.plugin)]);
  return element(
    "article",
    { class: "guest", "data-tone": lost === null ? state.tone : "bad", "aria-label": name },
    element(
      "div",
      { class: "guest-head" },
      element("h3", {}, foreign(name, { title: `UUID ${view.uuid}` })),
      element("span", { class: "badge", "data-tone": state.tone }, state.words),
      element(
        "dl",
        { class: "facts" },
        ...facts.map(([term, value]) =>
          element("div", {}, element("dt", {}, term), element("dd", {}, value))
        ),
      ),
    ),
    resources.length === 0
      ? element("p", { class: "none" }, "No disks and no leases")
      : element("ul", { class: "resources", role: "list" }, ...resources.map(resourceItem)),
  );
}

function resourceItem({ type, name, access, lock, words, holders }) {
  const status = element("span", { class: "lock", "data-lock": lock });
  status.append(icon(LOCK_ICONS[lock]));
  const text = element("span", {}, words);
  if (lock === "held") text.append(" ", ...nameList(holders.names));
  else if (holders.names.length > 0) text.append("; locked by ", ...nameList(holders.names));
  status.append(text);
  return element(
    "li",
    { class: "resource" },
    element(
      "span",
      { class: "what" },
      element("span", { class: "type" }, type),
      " ",
      foreign(name, { class: "path" }),
    ),
    " ",
    element("span", { class: "access" }, access),
    " ",
    status,
  );
}

function showSummary(views) {
  const counts = stateCounts(views).map(({ words, tone, count }) =>
    element("span", { class: "count", "data-tone": tone }, `${count} ${words.toLowerCase()}`)
  );
  const total = views.length === 0
    ? []
    : [element("span", { class: "count" }, counted(views.length, "guest"))];
  the("summary").replaceChildren(...total, ...counts);
}

/** Hides the guests that the filter field does not mean. */
export function applyFilter() {
  const filter = the("filter").value.trim();
  let matches = 0;
  for (const { view, item } of shown.values()) {
    const hidden = !isMatch(view, filter);
    if (item.hidden !== hidden) item.hidden = hidden;
    if (!hidden) matches++;
  }
  const words = matches === 0
    ? `No guest matches. Clear the filter to see all ${shown.size}.`
    : `${matches} of ${counted(shown.size, "guest")}`;
  const text = filter === "" || shown.size === 0 ? "" : words;
  if (the("matches").textContent !== text) the("matches").textContent = text;
}
