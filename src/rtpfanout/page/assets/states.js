/* The states of a session, each by colour, shape and word. */

import { el, icon, setClass, setText } from "./dom.js";

export const STATES = {
  flowing: { kind: "good", shape: "good", word: "Flowing" },
  no_parameter_sets: { kind: "warn", shape: "warn", word: "No parameter sets" },
  no_keyframes: { kind: "warn", shape: "warn", word: "No keyframes" },
  frozen: { kind: "bad", shape: "bad", word: "Frozen" },
  silent: { kind: "bad", shape: "bad", word: "Silent" },
  refused: { kind: "bad", shape: "no", word: "Refused" },
  never_fed: { kind: "", shape: "wait", word: "Waiting" },
  paused: { kind: "", shape: "pause", word: "Paused" },
  // Of subscribers.
  sending: { kind: "good", shape: "good", word: "Sending" },
  awaiting_consent: { kind: "", shape: "wait", word: "Awaits consent" },
  shed: { kind: "warn", shape: "warn", word: "Shed" },
};

const known = (state) => STATES[state] ?? { kind: "", shape: "wait", word: state };

export const wordOf = (state) => known(state).word;

export const kindOf = (state) => known(state).kind;

/** An element that `show` gives a state. */
export function stateMark(state) {
  const mark = el("span", { className: "state" }, icon("wait"), el("span"));
  show(mark, state);
  return mark;
}

export function show(mark, state) {
  const { kind, shape, word } = known(state);
  setClass(mark, `state ${kind}`.trim());
  const use = mark.querySelector("use");
  if (use.getAttribute("href") !== `#${shape}`) use.setAttribute("href", `#${shape}`);
  setText(mark.children[1], word);
}
