import { element, foreign, icon, nameList, the } from "./elements.js";
import { counted } from "./words.js";

/** More would bury the page; the guests themselves stand at the top of the list. */
const SHOWN_AT_MOST = 20;

let before = "";

/** Says at the top which guest lost what. Nothing is touched while that stays the same, so nothing is read out again. */
export function showLostLocks(views) {
  const losing = views.filter(({ lost }) => lost !== null);
  const now = JSON.stringify(losing.map(({ signature }) => signature));
  if (now === before) return;
  before = now;
  if (losing.length === 0) return the("lost").replaceChildren();
  const items = losing.slice(0, SHOWN_AT_MOST).map(lossItem);
  if (losing.length > SHOWN_AT_MOST) {
    items.push(
      element("li", {}, `and ${counted(losing.length - SHOWN_AT_MOST, "more guest")}: see the list below.`),
    );
  }
  const title = losing.length === 1 ? "A guest has lost locks" : `${losing.length} guests have lost locks`;
  the("lost").replaceChildren(
    element(
      "section",
      { class: "alarm", "aria-labelledby": "lost-title" },
      element("h2", { id: "lost-title" }, icon("alert"), title),
      element("ul", { role: "list" }, ...items),
    ),
  );
}

function lossItem({ name, uuid, pid, lost, locks }) {
  const sentence = element("p", {}, foreign(name, { class: "name" }), ` (pid ${pid}) has lost `);
  if (lost.length === 0) sentence.append(`${locks.lost} of its ${counted(locks.total, "lock")}.`);
  else sentence.append(lost.length === 1 ? "its lock on " : "its locks on ");
  lost.forEach(({ type, name, holders }, at) => {
    if (at > 0) sentence.append(", ");
    sentence.append(`${type} `, foreign(name, { class: "path" }));
    if (holders.names.length > 0) sentence.append(", which is locked now by ", ...nameList(holders.names));
  });
  if (lost.length > 0) sentence.append(".");
  const advice = element("p", { class: "advice" }, "Locks that nobody else took in between come back with ");
  advice.append(element("code", {}, `lockvisor attach ${/^[0-9a-f-]{36}$/i.test(uuid) ? uuid : "GUEST"}`));
  return element("li", {}, sentence, advice);
}
