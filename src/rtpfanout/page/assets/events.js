/* What happens, a line each, the latest first. */

import { ask, request } from "./api.js";
import { el, withCommands } from "./dom.js";
import { clock } from "./format.js";
import { kindMark } from "./kinds.js";

const MOST_LINES = 200;
const AGAIN_MS = 2000;

/** Server-Sent Events by fetch, which unlike EventSource can show a token. It goes on by itself, after
 * the last event that came. */
class EventStream {
  constructor(session, signal, tell) {
    this.session = session;
    this.signal = signal;
    this.tell = tell;
    this.after = "";
    this.run();
  }

  async run() {
    while (!this.signal.aborted) {
      let isWhole = false;
      try {
        const response = await request("events", { session: this.session, after: this.after }, this.signal);
        if (response.ok) {
          await this.read(response.body.pipeThrough(new TextDecoderStream()).getReader());
          isWhole = true;
        }
      } catch {
        // The server has gone, or this view has.
      }
      if (!isWhole) await new Promise((done) => { setTimeout(done, AGAIN_MS); });
    }
  }

  async read(reader) {
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const frames = text.split("\n\n");
      text = frames.pop();
      const events = frames.map((frame) => Object.fromEntries(frame.split("\n").map((line) => line.split(/: (.*)/s, 2))));
      this.after = events.at(-1)?.id ?? this.after;
      this.tell(events.filter((each) => each.event !== "heartbeat").map((each) => JSON.parse(each.data)));
    }
  }
}

/** The lines; with `session` those of one, which need not name it. */
export class EventList {
  constructor(session, signal) {
    this.session = session;
    this.list = el("ol", { className: "list" });
    this.nothing = el("p", { className: "note", textContent: "Nothing has happened yet." });
    this.root = el("div", { className: session ? "scroll-down" : "", tabIndex: session ? 0 : -1, role: "log", "aria-label": "Events, the latest first" }, this.nothing, this.list);
    this.stream = new EventStream(session, signal, (events) => this.add(events));
  }

  add(events) {
    if (events.length === 0) return;
    this.nothing.hidden = true;
    for (const event of events) this.list.prepend(this.line(event));
    while (this.list.children.length > MOST_LINES) this.list.lastElementChild.remove();
  }

  line(event) {
    const moment = new Date(event.time);
    const time = el("time", { dateTime: event.time, textContent: clock(moment), title: moment.toLocaleString("en-GB") });
    const who = el("span", { className: "who" });
    if (event.session_id) {
      const link = el("a", { href: `?session=${encodeURIComponent(event.session_name || event.session_id)}`, textContent: event.session_name || event.session_id });
      link.dataset.route = "";
      who.append(link);
    } else {
      who.append(el("span", { className: "soft", textContent: "server" }));
    }
    const more = [event.detail];
    if (event.kind.startsWith("subscriber_")) more.unshift(event.subscriber_address || `${event.count} subscribers`);
    else if (event.count > 1 && event.kind !== "gap") more.unshift(`${event.count} times`);
    const detail = el("span", { className: "detail", textContent: more.filter(Boolean).join("  ·  ") });
    const parts = this.session ? [time, kindMark(event.kind), detail] : [time, who, kindMark(event.kind), detail];
    return el("li", { className: this.session ? "event of-one" : "event" }, ...parts);
  }
}

export class EventsView {
  constructor(page) {
    this.page = page;
    this.aborting = new AbortController();
    this.events = new EventList("", this.aborting.signal);
    this.root = el(
      "div", {},
      el("h1", { textContent: "Events", tabIndex: -1 }),
      el("p", { className: "intro" }, ...withCommands("What happens, as it happens, the latest first. `rtpfanout events` has the same, and more of the past.")),
      el("div", { className: "card" }, this.events.root),
    );
    page.title("Events");
  }

  async refresh() {
    this.page.facts(await ask("sessions", { limit: "0" }, this.aborting.signal));
  }

  close() {
    this.aborting.abort();
  }
}
