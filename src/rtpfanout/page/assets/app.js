/* Which view is shown, and its second hand. */

import { Refused, setToken } from "./api.js";
import { el, icon, say, setText } from "./dom.js";
import { clock } from "./format.js";
import { EventsView } from "./events.js";
import { KnocksView } from "./knocks.js";
import { Overview } from "./overview.js";
import { SessionView } from "./session.js";

const EVERY_MS = 1000;
const LATER_MS = 3000;

const main = document.getElementById("main");
const gone = document.getElementById("gone");
const live = document.getElementById("live");

let view = null;
let timer = 0;
let lastAnswer = 0;
let round = 0;

/** The views' door to this page. */
const page = {
  follow(link) { history.pushState(null, "", link); route(true); },
  replace(link) { history.replaceState(null, "", link); },
  title(text) { document.title = text ? `${text} · rtpfanout` : "rtpfanout"; },
  facts(answer) {
    setText(document.getElementById("host"), answer.host);
    if (answer.knocking !== undefined) showKnocking(answer.knocking);
  },
};

const VIEWS = { "": "Sessions", events: "Events", knocks: "Knocks" };

const links = Object.entries(VIEWS).map(([name, title]) => {
  const link = el("a", { href: name ? `?view=${name}` : "?", textContent: title, hidden: name === "knocks" });
  link.dataset.route = "";
  return { name, link };
});
document.getElementById("views").append(...links.map(({ link }) => link));

/** Shown to who may see them. */
function showKnocking(number) {
  const { link } = links.find(({ name }) => name === "knocks");
  const badge = link.querySelector(".badge") ?? el("span", { className: "badge" });
  link.hidden = false;
  setText(badge, number > 99 ? "99+" : String(number));
  if (number) link.append(badge);
  else badge.remove();
}

function route(isByHand) {
  view?.close();
  const parameters = new URLSearchParams(location.search);
  const session = parameters.get("session");
  const name = session ? "" : parameters.get("view") ?? "";
  for (const each of links) {
    if (each.name === name) each.link.setAttribute("aria-current", session ? "true" : "page");
    else each.link.removeAttribute("aria-current");
  }
  if (session) view = new SessionView(page, session);
  else if (name === "events") view = new EventsView(page);
  else if (name === "knocks") view = new KnocksView(page);
  else view = new Overview(page, parameters);
  main.replaceChildren(view.root);
  if (isByHand) {
    scrollTo(0, 0);
    view.root.querySelector("h1")?.focus();
  }
  tick();
}

/** One question at a time; none while nobody sees the answer. */
async function tick() {
  clearTimeout(timer);
  const mine = ++round;
  if (document.hidden) return;
  let wait = EVERY_MS;
  try {
    const began = performance.now();
    await view.refresh();
    if (mine !== round) return;
    wait -= Math.min(EVERY_MS - 100, performance.now() - began);
    answered();
  } catch (error) {
    if (mine !== round) return;
    wait = LATER_MS;
    if (error instanceof Refused) refused(error);
    else unanswered();
  }
  timer = setTimeout(tick, wait);
}

function mark(kind, shape, word) {
  const text = live.textContent;
  if (text !== word) live.replaceChildren(el("span", { className: `state ${kind}` }, icon(shape), el("span", { textContent: word })));
}

function answered() {
  lastAnswer = Date.now();
  mark("good", "good", "Live");
  if (!gone.hidden) {
    gone.hidden = true;
    document.body.classList.remove("is-gone");
    say("The server answers again");
  }
}

function unanswered() {
  mark("bad", "bad", "No answer");
  document.body.classList.add("is-gone");
  const since = lastAnswer ? `since ${clock(lastAnswer)}` : "yet";
  setText(gone, `The server has not answered ${since}. What is shown is what it said last; asking again every ${LATER_MS / 1000} seconds.`);
  gone.hidden = false;
}

function refused(error) {
  if (error.status === 404 || error.status === 400) { // a session that has gone
    answered();
    view.missing?.(error.message);
    return;
  }
  mark("warn", "no", "Not logged in");
  if (main.querySelector(".login")) {
    return;
  }
  setToken("");
  const message = el("p", { className: "bad", textContent: error.message });
  if (error.status === 401) {
    main.replaceChildren(login(message));
    main.querySelector("input").focus();
  } else {
    main.replaceChildren(el("div", { className: "card login" }, el("h1", { textContent: "Not shown here" }), message));
  }
}

function login(message) {
  const input = el("input", { type: "password", id: "token", autocomplete: "off", required: true });
  const form = el(
    "form", {},
    el("label", { for: "token", textContent: "Bearer token" }),
    input,
    el("button", { className: "primary", textContent: "Log in" }),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    setToken(input.value.trim().replace(/^bearer\s+/i, ""));
    route(true);
  });
  return el(
    "div", { className: "card login" },
    el("h1", { textContent: "Log in", tabIndex: -1 }),
    message,
    form,
    el("p", { textContent: "A JWT signed by a key of auth.jwt_keys. It stays in this tab, and sees what its role and labels let it see." }),
  );
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-route]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  page.follow(link.getAttribute("href"));
});
addEventListener("popstate", () => route(true));
document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
route(false);
