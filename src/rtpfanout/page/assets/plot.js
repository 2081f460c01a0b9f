/* A figure of ten minutes, drawn by uPlot; colours and fonts are the page's. */

import { el, setText } from "./dom.js";
import { clock } from "./format.js";

const SPAN_SECONDS = 600;
const HEIGHT = 150;
const FONT = "12px system-ui, sans-serif";
/** Two points that are further apart have a gap between them. */
const GAP_SECONDS = 25;
/** What is plotted at least, of a server that has just begun. */
const LEAST_SECONDS = 60;

const styles = () => getComputedStyle(document.documentElement);

const scheme = matchMedia("(prefers-color-scheme: dark)");

export class Plot {
  /** `value` tells a number for people; all plots of a `group` show the same moment. */
  constructor(title, unit, value, group, least) {
    this.value = value;
    this.unit = unit;
    this.group = group;
    this.least = least;
    this.times = [];
    this.values = [];
    this.now = el("output");
    this.canvas = el("div", { className: "canvas" });
    this.root = el(
      "figure", { className: "plot card" },
      el("figcaption", {}, el("h2", { textContent: title }), this.now),
      this.canvas,
    );
    this.resized = new ResizeObserver(() => this.fit());
    this.resized.observe(this.canvas);
    this.recolour = () => { this.drawn?.destroy(); this.drawn = null; this.fit(); };
    scheme.addEventListener("change", this.recolour);
  }

  /** The oldest first; seconds since the epoch. */
  start(times, values) {
    this.times = times;
    this.values = values;
    this.draw();
  }

  add(time, value) {
    const last = this.times[this.times.length - 1];
    if (last !== undefined && time <= last) return;
    if (last !== undefined && time - last > GAP_SECONDS) {
      this.times.push(time - 1);
      this.values.push(null);
    }
    this.times.push(time);
    this.values.push(value);
    while (this.times[0] < time - SPAN_SECONDS) {
      this.times.shift();
      this.values.shift();
    }
    this.draw();
  }

  /** The seconds on the axis: as far back as there is something, ten minutes at the most. */
  span() {
    const last = this.times[this.times.length - 1] ?? Date.now() / 1000;
    const first = Math.min(this.times[0] ?? last, last - LEAST_SECONDS);
    return [Math.max(first, last - SPAN_SECONDS), last];
  }

  draw() {
    this.drawn?.setData([this.times, this.values]);
    if (!this.isPointedAt) this.tell(this.values.length - 1);
  }

  tell(place) {
    const value = this.values[place] ?? null;
    const text = `${this.value(value)}${value === null ? "" : ` ${this.unit}`}`;
    setText(this.now, text);
  }

  fit() {
    const width = Math.floor(this.canvas.clientWidth);
    if (!width) return;
    if (this.drawn) this.drawn.setSize({ width, height: HEIGHT });
    else this.drawn = new uPlot(this.options(width), [this.times, this.values], this.canvas);
  }

  options(width) {
    const colour = (name) => styles().getPropertyValue(name).trim();
    const axis = {
      stroke: colour("--soft"),
      font: FONT,
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { show: false },
    };
    return {
      width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: this.group }, y: false, points: { size: 6 }, drag: { x: false, y: false } },
      padding: [6, 8, 0, 0],
      scales: {
        x: { range: () => this.span() },
        y: { range: (_, _least, most) => [0, Math.max(this.least, (most ?? 0) * 1.15)] },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          size: 26,
          gap: 4,
          space: 90,
          values: (_, times) => times.map((time) => clock(time * 1000).slice(0, time % 60 ? 8 : 5)),
          incrs: [15, 30, 60, 120, 300],
        },
        { ...axis, size: 48, gap: 6, space: 36, values: (_, values) => values.map((each) => String(Number(each.toPrecision(3)))) },
      ],
      series: [
        {},
        { stroke: colour("--plot"), fill: colour("--plot-fill"), width: 1.5, points: { show: false }, spanGaps: false },
      ],
      hooks: {
        setCursor: [({ cursor }) => {
          this.isPointedAt = cursor.idx !== null && cursor.idx !== undefined && cursor.left >= 0;
          this.tell(this.isPointedAt ? cursor.idx : this.values.length - 1);
        }],
      },
    };
  }

  close() {
    this.resized.disconnect();
    scheme.removeEventListener("change", this.recolour);
    this.drawn?.destroy();
  }
}
