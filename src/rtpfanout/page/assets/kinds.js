/* What can happen, each by colour, shape and word. */

import { el, icon } from "./dom.js";

const KINDS = {
  overload: ["bad", "bad"],
  silent: ["bad", "bad"],
  frozen: ["bad", "bad"],
  no_keyframes: ["warn", "warn"],
  no_parameter_sets: ["warn", "warn"],
  restarted: ["warn", "warn"],
  gap: ["warn", "warn"],
  subscriber_shed: ["warn", "warn"],
  subscriber_refused: ["bad", "no"],
  subscriber_lapsed: ["warn", "warn"],
  subscriber_unreachable: ["bad", "bad"],
  paused: ["", "pause"],
  overload_over: ["good", "good"],
  flowing: ["good", "good"],
  back: ["good", "good"],
  subscriber_back: ["good", "good"],
};

export function kindMark(kind) {
  const [colour, shape] = KINDS[kind] ?? ["", "wait"];
  const word = kind.replaceAll("_", " ");
  return el("span", { className: `state ${colour}`.trim() }, icon(shape), el("span", { textContent: word[0].toUpperCase() + word.slice(1) }));
}
