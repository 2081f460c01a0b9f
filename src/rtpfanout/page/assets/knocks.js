/* Who sends RTP that no session admits, and what lets him in. */

import { ask } from "./api.js";
import { el, lineToCopy, setChildren, setText } from "./dom.js";
import { hex, span, whole } from "./format.js";

export class KnocksView {
  constructor(page) {
    this.page = page;
    this.aborting = new AbortController();
    this.items = new Map();
    this.list = el("ul", { className: "list" });
    this.card = el("div", { className: "card", hidden: true }, this.list);
    this.nobody = el(
      "div", { className: "card empty", hidden: true },
      el("h2", { textContent: "Nobody knocks" }),
      el("p", { textContent: "Every RTP packet that comes has a session. A camera that sends and is not admitted appears here, with the command that lets it in." }),
    );
    this.root = el(
      "div", {},
      el("h1", { textContent: "Knocks", tabIndex: -1 }),
      el("p", { className: "intro", textContent: "Who sends RTP that no session admits, the latest first. Run the command on the server's host to let one in." }),
      this.card, this.nobody,
    );
    page.title("Knocks");
  }

  async refresh() {
    const { signal } = this.aborting;
    const [facts, { knocks }] = await Promise.all([ask("sessions", { limit: "0" }, signal), ask("knocks", {}, signal)]);
    this.page.facts(facts);
    this.card.hidden = knocks.length === 0;
    this.nobody.hidden = knocks.length > 0;
    const items = knocks.map((knock) => {
      const key = `${knock.source} ${knock.ssrc} ${knock.admit_by} ${knock.note}`;
      const item = this.items.get(key) ?? new Item(knock);
      item.show(knock, facts.at_ms);
      return [key, item];
    });
    this.items = new Map(items);
    setChildren(this.list, items.map(([, item]) => item.root));
  }

  close() {
    this.aborting.abort();
  }
}

class Item {
  constructor(knock) {
    this.last = el("span", { className: "soft" });
    const near = knock.session ? el("span", { className: "soft" }, "nearly ", this.link(knock.session)) : null;
    this.root = el(
      "li", { className: "knock" },
      el(
        "p", { className: "who" },
        el("b", { className: "mono", textContent: knock.source }),
        el("span", { className: "soft", textContent: `SSRC ${hex(knock.ssrc)}, payload type ${knock.payload_type}` }),
        el("span", { textContent: knock.reason.replaceAll("_", " ") }),
        near,
        this.last,
      ),
      lineToCopy(knock.admit_by),
      knock.note ? el("p", { className: "soft", textContent: knock.note }) : null,
    );
  }

  link(session) {
    const made = el("a", { href: `?session=${encodeURIComponent(session)}`, textContent: session });
    made.dataset.route = "";
    return made;
  }

  show(knock, now) {
    const packets = knock.packets === 1 ? "1 packet" : `${whole(knock.packets)} packets`;
    setText(this.last, `${packets}, the last ${span(now - Date.parse(knock.last_seen))} ago`);
  }
}
