/* A line of ten minutes, as wide as a word. */

import { svg } from "./dom.js";

const WIDTH = 132;
const HEIGHT = 26;
export const SPAN_MS = 600_000;
/** Two points that are further apart have a gap between them. */
const GAP_MS = 160_000;

export class Spark {
  constructor() {
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.root = svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" }, this.area, this.line);
  }

  /** `ages` in ms, the oldest first, as far back as `span`. From nothing at the bottom to the greatest at the top. */
  draw(ages, values, now, span) {
    const points = ages.map((age, i) => [age, values[i]]).filter(([age, value]) => value !== null && age <= span);
    points.push([0, now ?? 0]);
    const most = Math.max(1, ...points.map(([, value]) => value));
    let line = "";
    let area = "";
    let start = null;
    let before = null;
    const end = (x) => { area += `L${x} ${HEIGHT}L${start} ${HEIGHT}Z`; };
    for (const [age, value] of points) {
      const x = (WIDTH * (1 - age / span)).toFixed(1);
      const y = (HEIGHT - 1 - (HEIGHT - 3) * (value / most)).toFixed(1);
      if (before === null || before.age - age > GAP_MS) {
        if (before) end(before.x);
        start = x;
        line += `M${x} ${y}`;
        area += `M${x} ${y}`;
      } else {
        line += `L${x} ${y}`;
        area += `L${x} ${y}`;
      }
      before = { age, x };
    }
    end(before.x);
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
  }
}
