/* One session: how it is received, who gets it, how to see it. */

import { ask } from "./api.js";
import { el, setAttribute, setChildren, setClass, setText, withCommands } from "./dom.js";
import { EventList } from "./events.js";
import { Figures } from "./figures.js";
import { DASH, hex, lossClass, megabits, milliseconds, percent, perSecond, shortTime, span, whole } from "./format.js";
import { Plot } from "./plot.js";
import { playersOf } from "./players.js";
import { kindOf, show, stateMark } from "./states.js";
import { SubscriberTable } from "./subscribers.js";

/** Who looks again after so long has missed some: the server has it. */
const AWAY_MS = 15_000;
/** Rounds: for each of them the server asks its kernel. */
const SUBSCRIBERS_EVERY = 2;

export class SessionView {
  constructor(page, name) {
    this.page = page;
    this.name = name;
    this.aborting = new AbortController();
    this.counted = [];
    this.round = 0;
    this.players = "";
    this.build();
    page.title(name);
  }

  build() {
    this.title = el("h1", { textContent: this.name, tabIndex: -1 });
    this.mark = stateMark("never_fed");
    this.since = el("span", { className: "since" });
    this.mark.append(this.since);
    this.labels = el("p", { className: "labels" });
    this.advice = el("p", { className: "advice", hidden: true });
    this.figures = new Figures(["Bitrate", "Loss", "Jitter", "Frames", "Packets", "Subscribers"]);
    const group = "session";
    this.plots = {
      bitrate: new Plot("Bitrate", "Mbit/s", (value) => value === null ? DASH : value.toFixed(2), group, 0.1),
      loss: new Plot("Loss", "%", (value) => value === null ? DASH : value.toFixed(2), group, 1),
      jitter: new Plot("Jitter", "ms", (value) => value === null ? DASH : value.toFixed(1), group, 1),
      frames: new Plot("Frame rate", "/s", (value) => value === null ? DASH : value.toFixed(1), group, 1),
    };
    this.latency = new Latency();
    this.watch = el("div");
    this.subscribers = new SubscriberTable(this.name, this.aborting.signal);
    this.events = new EventList(this.name, this.aborting.signal);
    this.details = el("dl", { className: "details" });
    this.values = new Map();
    this.served = el(
      "div", {},
      this.figures.root,
      el("div", { className: "plots" }, ...Object.values(this.plots).map((plot) => plot.root)),
      el(
        "div", { className: "columns" },
        card("Watch it", this.watch),
        card("Latency", this.latency.root, "from receipt to the last subscriber's copy"),
      ),
      el("div", { className: "columns" }, this.subscribers.root),
      el(
        "div", { className: "columns" },
        card("Events", this.events.root),
        card("Details", this.details),
      ),
    );
    this.root = el(
      "div", { className: "session" },
      el("p", { className: "crumb" }, link("?", "← All sessions")),
      el("div", { className: "headline" }, this.title, this.mark),
      this.labels, this.advice, this.served,
    );
  }

  async refresh() {
    const history = !this.hasHistory || performance.now() - this.askedAt > AWAY_MS;
    const answer = await ask("session", { id: this.name, history }, this.aborting.signal);
    this.askedAt = performance.now();
    this.served.hidden = false;
    this.page.facts(answer);
    this.show(answer);
    if (answer.history) this.startPlots(answer);
    else if (answer.stats.reception) this.addPoint(answer);
    if (this.round % SUBSCRIBERS_EVERY === 0) await this.subscribers.refresh();
    this.round += 1;
  }

  close() {
    this.aborting.abort();
    for (const plot of Object.values(this.plots)) plot.close();
  }

  /** It has gone, or never was. */
  missing(message) {
    setText(this.title, this.name);
    this.page.title(this.name);
    this.advice.hidden = false;
    setClass(this.advice, "advice bad");
    setText(this.advice, `${message[0].toUpperCase()}${message.slice(1)}.`);
    this.advised = null;
    this.served.hidden = true;
    this.mark.hidden = true;
  }

  show(answer) {
    const { session, stats } = answer;
    const reception = stats.reception ?? {};
    const state = ["paused", "refused"].includes(session.status) ? session.status : session.condition;
    this.mark.hidden = false;
    setText(this.title, session.name || session.session_id);
    show(this.mark, state);
    setText(this.since, session.condition_since ? `for ${span(answer.at_ms - Date.parse(session.condition_since))}` : "");
    const labels = Object.entries(session.labels).map(([key, value]) => `${key}=${value}`);
    const labelText = labels.join("\u2003");
    setText(this.labels, labelText);
    this.labels.hidden = labels.length === 0;
    const advice = adviceOf(session, stats);
    this.advice.hidden = advice === "";
    if (this.advised !== advice) this.advice.replaceChildren(...withCommands(advice));
    this.advised = advice;
    setClass(this.advice, `advice ${kindOf(state) === "good" ? "" : kindOf(state)}`.trim());

    if (reception.expected !== undefined) this.counted = [...this.counted.slice(-1), reception];
    const loss = answer.loss ?? null;
    this.figures.set(0, megabits(reception.bitrate_bps), "Mbit/s");
    this.figures.set(1, percent(loss), "%", lossClass(loss));
    this.figures.set(2, milliseconds(reception.jitter_seconds), "ms");
    this.figures.set(3, perSecond(reception.frame_rate), "/s");
    this.figures.set(4, whole(Math.round(stats.packets_per_second)), "/s");
    this.figures.set(5, whole(stats.subscriber_count));
    this.latency.show(answer.latency, stats.last_copy_latency);
    this.showPlayers(answer);
    this.showDetails(answer);
  }

  startPlots({ at_ms: at, history }) {
    this.hasHistory = true;
    const times = history.age_ms.map((age) => (at - age) / 1000);
    const of = (values, factor) => values.map((value) => value === null ? null : value * factor);
    this.plots.bitrate.start([...times], of(history.bitrate_bps, 1e-6));
    this.plots.loss.start([...times], of(history.loss, 100));
    this.plots.jitter.start([...times], of(history.jitter_seconds, 1e3));
    this.plots.frames.start([...times], of(history.frame_rate, 1));
  }

  addPoint({ at_ms: at, stats }) {
    const { bitrate_bps, jitter_seconds, frame_rate } = stats.reception;
    const [before, last] = this.counted;
    const came = last ? last.expected - before.expected : 0;
    const loss = came > 0 ? 100 * Math.min(1, Math.max(0, last.lost - before.lost) / came) : null;
    const values = {
      bitrate: bitrate_bps / 1e6,
      loss,
      jitter: jitter_seconds === null ? null : jitter_seconds * 1e3,
      frames: frame_rate,
    };
    for (const [name, plot] of Object.entries(this.plots)) plot.add(at / 1000, values[name]);
  }

  showPlayers({ session, viewer, rtsp }) {
    const key = JSON.stringify([session.name, session.session_id, viewer, rtsp]);
    if (key === this.players) return;
    this.players = key;
    this.watch.replaceChildren(...playersOf(session, viewer, rtsp));
  }

  showDetails({ session, stats, at_ms: at }) {
    const of = stats.reception ?? {};
    const share = of.expected ? ` (${percent(of.lost / of.expected)} %)` : "";
    const dropped = Object.entries(stats)
      .filter(([name, value]) => name.startsWith("dropped_") && value)
      .map(([name, value]) => `${name.slice(8).replaceAll("_", " ")} ${whole(value)}`);
    const told = {
      Source: `${session.pinned_source || session.source_address || "anybody"} (${session.source_policy})`,
      SSRC: hex(of.ssrc ?? session.ssrc) + (session.ssrc_policy ? ` (${session.ssrc_policy})` : ""),
      Encoding: [of.encoding || "not known yet", of.clock_rate ? `${whole(of.clock_rate)} Hz` : null, of.payload_type === null || of.payload_type === undefined ? null : `payload type ${of.payload_type}`].filter(Boolean).join(", "),
      Keyframes: of.keyframes === null || of.keyframes === undefined ? DASH : `${whole(of.keyframes)}${of.seconds_since_keyframe === null ? "" : `, the last ${span(of.seconds_since_keyframe * 1000)} ago`}`,
      "Packets received": whole(stats.packets_received),
      "Packets lost": of.expected === undefined ? DASH : `${whole(of.lost)} of ${whole(of.expected)}${share}`,
      "Packets dropped": dropped.join(", ") || "none",
      "Copies sent": whole(stats.packets_sent),
      "Copies failed": whole(stats.send_failures),
      Since: new Date(session.created_at).toLocaleString("en-GB"),
      Id: session.session_id,
    };
    for (const [name, text] of Object.entries(told)) {
      let value = this.values.get(name);
      if (!value) {
        value = el("dd", { "data-name": name });
        this.values.set(name, value);
        this.details.append(el("dt", { textContent: name }), value);
      }
      setText(value, text);
    }
  }
}

/** What to do about its state; the server says what the state is. */
function adviceOf(session, stats) {
  const name = session.name || session.session_id;
  if (session.refused_reason) return `Kept, but not served: ${session.refused_reason}.`;
  if (session.status === "paused") return `Paused: what comes is dropped. \`rtpfanout session update ${name} --resume\` goes on.`;
  const help = session.condition_help.replace(/\.$/, "");
  switch (session.condition) {
    case "never_fed": return stats.dropped_latching || stats.dropped_wrong_source
      ? "Packets came, and none was let in: `rtpfanout knocks` has the command that lets them in."
      : "Waiting for the first packet.";
    case "silent": return `${help}. Is the camera on, and does it still send here?`;
    case "flowing": return "";
    default: return `${help}.`;
  }
}

class Latency {
  constructor() {
    this.summary = el("p", { className: "note" });
    this.bars = el("div", { className: "bars", role: "img" });
    this.ticks = el("div", { className: "ticks", "aria-hidden": "true" });
    this.root = el("div", {}, this.summary, this.bars, this.ticks);
  }

  show(latency, summary) {
    const counts = latency?.last ?? [];
    const isKnown = Boolean(summary) && counts.length > 0;
    this.bars.hidden = this.ticks.hidden = !isKnown;
    if (!isKnown) {
      setText(this.summary, "Known as soon as a packet had a subscriber.");
      return;
    }
    const words = [["half within", summary.p50_seconds], ["99 % within", summary.p99_seconds], ["all within", summary.max_seconds]];
    const text = words.map(([word, seconds]) => `${word} ${shortTime(seconds)}`).join(", ");
    setText(this.summary, text[0].toUpperCase() + text.slice(1));
    setAttribute(this.bars, "aria-label", `Histogram of the latency of ${whole(summary.count)} packets: ${text}`);
    const most = Math.max(...counts);
    setChildren(this.bars, counts.map((count, i) => {
      const bar = this.bars.children[i] ?? el("i");
      bar.className = count ? "" : "none";
      bar.style.height = `${count ? Math.max(2, 100 * count / most) : 1}%`;
      return bar;
    }));
    const every = Math.ceil(counts.length / 6);
    setChildren(this.ticks, counts.map((_, i) => {
      const tick = this.ticks.children[i] ?? el("span");
      setText(tick, i % every === 0 && i < counts.length - 2 && latency.bounds_seconds[i] ? shortTime(latency.bounds_seconds[i]) : "");
      return tick;
    }));
  }
}

function card(title, content, note = "") {
  return el(
    "section", { className: "card" },
    el("div", { className: "title" }, el("h2", { textContent: title }), note ? el("span", { className: "soft", textContent: note }) : null),
    content,
  );
}

function link(href, text) {
  const made = el("a", { href, textContent: text });
  made.dataset.route = "";
  return made;
}
