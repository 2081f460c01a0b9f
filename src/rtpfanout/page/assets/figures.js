/* A few figures in a row, large. */

import { el, setClass, setText } from "./dom.js";

export class Figures {
  constructor(titles) {
    this.values = titles.map(() => ({ dd: el("dd"), number: el("span"), unit: el("small") }));
    this.root = el(
      "dl", { className: "figures" },
      ...this.values.map(({ dd, number, unit }, i) => {
        dd.append(number, unit);
        return el("div", {}, el("dt", { textContent: titles[i] }), dd);
      }),
    );
  }

  set(place, text, unit = "", kind = "") {
    const value = this.values[place];
    setText(value.number, text);
    setText(value.unit, unit);
    setClass(value.dd, kind);
  }
}
