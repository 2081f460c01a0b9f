/* All sessions: what there is, what is wrong, who knocks. */

import { ask } from "./api.js";
import { el, lineToCopy, say, setAttribute, setChildren, setClass, setText } from "./dom.js";
import { lossClass, megabits, milliseconds, percent, perSecond, span, whole } from "./format.js";
import { Figures } from "./figures.js";
import { Spark, SPAN_MS } from "./spark.js";
import { kindOf, show, stateMark } from "./states.js";

const ROWS = 50;
const HISTORY_MS = 10_000;
const TYPING_MS = 250;
/** What is drawn at least, of a server that has just begun. */
const LEAST_MS = 60_000;

const COLUMNS = [
  { sort: "name", title: "Session", className: "named" },
  { sort: "state", title: "State" },
  { title: "Lately", className: "lately" },
  { sort: "bitrate", title: "Bitrate", unit: "Mbit/s", number: true },
  { sort: "loss", title: "Loss", unit: "%", number: true },
  { sort: "jitter", title: "Jitter", unit: "ms", number: true },
  { sort: "frame_rate", title: "Frames", unit: "/s", number: true },
  { sort: "subscribers", title: "Subscribers", number: true },
];

const CHOICES = [
  ["", "All"],
  ["attention", "Attention"],
  ["flowing", "Flowing"],
  ["never_fed", "Waiting"],
  ["paused", "Paused"],
];

export class Overview {
  constructor(page, parameters) {
    this.page = page;
    this.query = {
      q: parameters.get("q") ?? "",
      state: parameters.get("state") ?? "",
      sort: parameters.get("sort") ?? "state",
      descending: parameters.get("descending") === "1",
      offset: Number(parameters.get("offset")) || 0,
    };
    this.rows = new Map();
    this.historyAt = -HISTORY_MS;
    this.aborting = new AbortController();
    this.build();
    page.title("");
  }

  build() {
    this.figures = new Figures(["Sessions", "Need attention", "Received", "Subscribers"]);
    this.search = el("input", { type: "search", id: "q", placeholder: "Name, label or address", value: this.query.q, maxLength: 128 });
    let typing = 0;
    this.search.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.change({ q: this.search.value }), TYPING_MS);
    });
    this.choices = CHOICES.map(([state, word]) => {
      const count = el("span");
      const button = el("button", { type: "button" }, word, count);
      button.addEventListener("click", () => this.change({ state }));
      return { state, button, count };
    });
    this.count = el("span", { className: "count" });
    this.body = el("tbody");
    this.table = el(
      "div", { className: "card scroll" },
      el(
        "table", { className: "sessions" },
        el("caption", { className: "unseen", textContent: "Sessions with their live figures; the headings sort" }),
        el("thead", {}, el("tr", {}, ...this.headings())),
        this.body,
      ),
    );
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row && !event.target.closest("a") && getSelection().isCollapsed) row.querySelector("a").click();
    });
    this.empty = el("div", { className: "card empty", hidden: true });
    this.back = el("button", { type: "button", textContent: "Previous" });
    this.on = el("button", { type: "button", textContent: "Next" });
    this.place = el("span");
    this.back.addEventListener("click", () => this.turn(-ROWS));
    this.on.addEventListener("click", () => this.turn(ROWS));
    this.pager = el("nav", { className: "pager", "aria-label": "Pages of sessions", hidden: true }, this.place, this.back, this.on);
    this.tools = el(
      "div", { className: "tools" },
      el("label", { className: "unseen", for: "q", textContent: "Find sessions" }),
      this.search,
      el("div", { className: "choice", role: "group", "aria-label": "Which sessions" }, ...this.choices.map((each) => each.button)),
      this.count,
    );
    this.root = el(
      "div", {},
      el("div", { className: "head" }, el("h1", { textContent: "Sessions", tabIndex: -1 }), this.figures.root),
      this.tools, this.table, this.empty, this.pager,
    );
  }

  headings() {
    this.sorts = [];
    return COLUMNS.map(({ sort, title, unit, number, className }) => {
      const heading = el("th", { scope: "col", className: number ? "number" : className ?? "" });
      const words = [title, unit ? el("small", { textContent: unit }) : null];
      if (!sort) {
        heading.append(title);
        this.lately = heading;
        return heading;
      }
      const button = el("button", { type: "button" }, ...words);
      button.addEventListener("click", () => {
        const isSame = this.query.sort === sort;
        this.change({ sort, descending: isSame ? !this.query.descending : Boolean(number) });
      });
      heading.append(button);
      this.sorts.push({ sort, heading });
      return heading;
    });
  }

  turn(by) {
    this.change({ offset: Math.max(0, this.query.offset + by) });
    this.table.scrollIntoView({ block: "nearest" });
  }

  change(what) {
    this.query = { ...this.query, offset: 0, ...what };
    this.isToBeSaid = true;
    this.historyAt = -HISTORY_MS;
    this.page.replace(this.link());
    this.refresh().catch(() => {});
  }

  link() {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(this.query)) {
      if (value && !(name === "sort" && value === "state")) parameters.set(name, value === true ? "1" : value);
    }
    return `?${parameters}`;
  }

  async refresh() {
    const asked = this.query;
    const now = performance.now();
    const history = now - this.historyAt >= HISTORY_MS;
    const answer = await ask("sessions", { ...asked, limit: ROWS, history }, this.aborting.signal);
    if (asked !== this.query) return;
    if (history) this.historyAt = now;
    this.show(answer);
  }

  close() {
    this.aborting.abort();
  }

  show(answer) {
    this.page.facts(answer);
    this.figures.set(0, whole(answer.sessions));
    this.figures.set(1, whole(answer.attention), "", answer.attention ? "bad" : "");
    this.figures.set(2, megabits(answer.bitrate_bps), "Mbit/s");
    this.figures.set(3, whole(answer.subscribers));
    if (answer.attention > (this.attention ?? answer.attention)) say(`${answer.attention} sessions need attention`);
    this.attention = answer.attention;
    for (const { state, button, count } of this.choices) {
      const number = state === "" ? answer.sessions : state === "attention" ? answer.attention : answer.states[state] ?? 0;
      setAttribute(button, "aria-pressed", String(this.query.state === state));
      setText(count, whole(number));
    }
    for (const { sort, heading } of this.sorts) {
      if (this.query.sort !== sort) heading.removeAttribute("aria-sort");
      else setAttribute(heading, "aria-sort", this.query.descending ? "descending" : "ascending");
    }
    this.showRows(answer);
    this.showPlace(answer);
    this.showEmpty(answer);
  }

  showRows(answer) {
    if (answer.history) {
      this.span = Math.min(SPAN_MS, Math.max(LEAST_MS, ...answer.history.age_ms));
      const minutes = Math.round(this.span / 60_000);
      setText(this.lately, minutes > 1 ? `Last ${minutes} minutes` : "Last minute");
    }
    const rows = answer.rows.map((told, place) => {
      let row = this.rows.get(told.id);
      if (!row) this.rows.set(told.id, row = new Row());
      row.show(told, answer.at_ms);
      if (answer.history) row.spark.draw(answer.history.age_ms, answer.history.bitrate_bps[place], told.bitrate_bps, this.span);
      else if (!row.isDrawn) this.historyAt = -HISTORY_MS; // a newcomer
      row.isDrawn ||= Boolean(answer.history);
      return row;
    });
    const shown = new Set(answer.rows.map((told) => told.id));
    for (const id of this.rows.keys()) if (!shown.has(id)) this.rows.delete(id);
    setChildren(this.body, rows.map((row) => row.root));
  }

  showPlace(answer) {
    const first = answer.matched ? this.query.offset + 1 : 0;
    const last = this.query.offset + answer.rows.length;
    const isAll = answer.matched <= ROWS && this.query.offset === 0;
    this.pager.hidden = isAll;
    this.back.disabled = this.query.offset === 0;
    this.on.disabled = last >= answer.matched;
    setText(this.place, `${whole(first)} to ${whole(last)} of ${whole(answer.matched)}`);
    const isFiltered = this.query.q || this.query.state;
    setText(this.count, isFiltered ? `${whole(answer.matched)} of ${whole(answer.sessions)}` : "");
    if (this.isToBeSaid) {
      this.isToBeSaid = false;
      const order = COLUMNS.find((each) => each.sort === this.query.sort).title;
      say(`${answer.matched} sessions, sorted by ${order}${this.query.descending ? ", descending" : ""}`);
    }
    if (answer.rows.length === 0 && this.query.offset) this.change({ offset: 0 });
  }

  showEmpty(answer) {
    const why = answer.sessions === 0 ? "none" : answer.matched === 0 ? "no match" : "";
    this.table.hidden = why !== "";
    this.tools.hidden = why === "none";
    this.figures.root.hidden = why === "none";
    if (this.why !== why) {
      this.why = why;
      this.empty.hidden = why === "";
      this.empty.replaceChildren(...(why === "none" ? noSessions(answer) : this.noMatch()));
    }
  }

  noMatch() {
    const button = el("button", { type: "button", textContent: "Show all" });
    button.addEventListener("click", () => {
      this.search.value = "";
      this.change({ q: "", state: "" });
      this.search.focus();
    });
    return [el("h2", { textContent: "No session matches" }), el("p", {}, button)];
  }
}

function noSessions(answer) {
  const host = location.hostname.replace(/^\[|\]$/g, "");
  const to = answer.ingest.replace(/^(0\.0\.0\.0|\[::\])(?=:)/, host.includes(":") ? `[${host}]` : host);
  return [
    el("h2", { textContent: "No session yet" }),
    el("p", { textContent: "A session takes one camera's packets and copies them to everybody who subscribes. On this server, run:" }),
    lineToCopy("rtpfanout session create any --name camera-1"),
    el("p", {}, "Then let the camera send RTP to ", el("span", { className: "mono", textContent: to }), " (UDP). It appears here with its first packet."),
  ];
}

class Row {
  constructor() {
    this.link = el("a");
    this.link.dataset.route = "";
    this.small = el("small");
    this.mark = stateMark("never_fed");
    this.since = el("span", { className: "since" });
    this.mark.append(this.since);
    this.spark = new Spark();
    this.cells = ["bitrate", "loss", "jitter", "frames", "subscribers"].map(() => el("td", { className: "number" }));
    this.root = el(
      "tr", {},
      el("th", { scope: "row", className: "named" }, this.link, this.small),
      el("td", {}, this.mark),
      el("td", {}, this.spark.root),
      ...this.cells,
    );
  }

  show(told, now) {
    const name = told.name || told.id;
    setText(this.link, name);
    setAttribute(this.link, "href", `?session=${encodeURIComponent(name)}`);
    const labels = Object.entries(told.labels).map(([key, value]) => `${key}=${value}`);
    setText(this.small, [told.source || "any source", ...labels].join("  ·  "));
    show(this.mark, told.state);
    const isSteady = told.state === "flowing" || !told.since_ms;
    setText(this.since, isSteady ? "" : span(now - told.since_ms));
    setClass(this.root, kindOf(told.state) === "" || told.state === "silent" ? "quiet" : "");
    const isFed = told.state !== "never_fed";
    const figures = [
      [megabits(isFed ? told.bitrate_bps : null), ""],
      [percent(told.loss), lossClass(told.loss)],
      [milliseconds(told.jitter_seconds), ""],
      [perSecond(isFed ? told.frame_rate : null), ""],
      [whole(told.subscribers), ""],
    ];
    figures.forEach(([text, kind], i) => {
      setText(this.cells[i], text);
      setClass(this.cells[i], `number ${text === "–" ? "absent" : kind}`.trim());
    });
  }
}
