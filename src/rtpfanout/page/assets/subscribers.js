/* Who gets a session, a hundred at a time. */

import { ask } from "./api.js";
import { el, setChildren, setClass, setText, withCommands } from "./dom.js";
import { DASH, lossClass, milliseconds, percent, span, whole } from "./format.js";
import { quoted } from "./players.js";
import { kindOf, show, stateMark } from "./states.js";

export class SubscriberTable {
  constructor(session, signal) {
    this.session = session;
    this.signal = signal;
    this.cursors = [""];
    this.rows = new Map();
    this.body = el("tbody");
    this.number = el("span", { className: "soft" });
    this.nobody = el("p", { className: "note", textContent: "Nobody yet.", hidden: true });
    const heading = (title, unit, number) => el("th", { scope: "col", className: number ? "number" : "" }, title, unit ? el("small", { textContent: unit }) : null);
    this.table = el(
      "div", { className: "scroll" },
      el(
        "table", {},
        el("caption", { className: "unseen", textContent: "Subscribers" }),
        el("thead", {}, el(
          "tr", {},
          heading("Address"), heading("State"), heading("Class"),
          heading("Sent", "", true), heading("Failed", "", true), heading("Loss", "%", true),
          heading("Jitter", "ms", true), heading("Round trip", "ms", true), heading("Since"), heading("Hint"),
        )),
        this.body,
      ),
    );
    this.back = el("button", { type: "button", textContent: "Previous" });
    this.on = el("button", { type: "button", textContent: "Next" });
    this.back.addEventListener("click", () => { this.cursors.pop(); this.refresh().catch(() => {}); });
    this.on.addEventListener("click", () => { this.cursors.push(this.next); this.refresh().catch(() => {}); });
    this.pager = el("nav", { className: "pager note", "aria-label": "Pages of subscribers", hidden: true }, this.back, this.on);
    this.root = el(
      "section", { className: "card" },
      el(
        "div", { className: "title" },
        el("h2", { textContent: "Subscribers" }),
        el("span", { className: "soft" }, ...withCommands(`what keeps a picture away tells \`rtpfanout why ${quoted(session)}\``)),
      ),
      this.table, this.nobody, this.pager,
    );
  }

  async refresh() {
    const cursor = this.cursors.at(-1);
    const answer = await ask("subscribers", { id: this.session, cursor }, this.signal);
    if (cursor !== this.cursors.at(-1)) return;
    this.next = answer.next_cursor;
    const isNone = answer.subscribers.length === 0 && this.cursors.length === 1;
    this.nobody.hidden = !isNone;
    this.table.hidden = isNone;
    this.pager.hidden = this.cursors.length === 1 && !answer.next_cursor;
    this.back.disabled = this.cursors.length === 1;
    this.on.disabled = !answer.next_cursor;
    const shown = new Set(answer.subscribers.map((each) => each.address));
    for (const address of this.rows.keys()) if (!shown.has(address)) this.rows.delete(address);
    setChildren(this.body, answer.subscribers.map((told) => this.row(told)));
  }

  row(told) {
    let row = this.rows.get(told.address);
    if (!row) this.rows.set(told.address, row = new Row(told.address));
    row.show(told);
    return row.root;
  }
}

class Row {
  constructor(address) {
    this.mark = stateMark("sending");
    this.cells = ["", "number", "number", "number", "number", "number", "", "hint"].map((className) => el("td", { className }));
    this.root = el("tr", {}, el("th", { scope: "row", className: "mono", textContent: address }), el("td", {}, this.mark), ...this.cells);
  }

  show(told) {
    show(this.mark, told.state);
    const report = told.report;
    const texts = [
      told.class,
      whole(told.packets_sent),
      whole(told.send_failures),
      report ? percent(report.fraction_lost) : DASH,
      report ? milliseconds(report.jitter_seconds) : DASH,
      report ? milliseconds(report.round_trip_seconds) : DASH,
      span(Date.now() - Date.parse(told.since)),
      told.hint,
    ];
    texts.forEach((text, i) => setText(this.cells[i], text));
    setClass(this.cells[2], `number ${told.send_failures ? "bad" : ""}`.trim());
    setClass(this.cells[3], `number ${report ? lossClass(report.fraction_lost) : "absent"}`.trim());
    setClass(this.cells[4], report ? "number" : "number absent");
    setClass(this.cells[5], report ? "number" : "number absent");
    const isBad = told.is_unreached || kindOf(told.state) === "bad";
    setClass(this.cells[7], isBad ? "hint bad" : "hint");
  }
}
