/* Figures as people read them. A figure that is not known is a dash. */

export const DASH = "–";

const isKnown = (value) => value !== null && value !== undefined;

const fixed = (value, digits) => isKnown(value) ? value.toFixed(digits) : DASH;

export const megabits = (bps) => fixed(isKnown(bps) ? bps / 1e6 : null, 2);

export const percent = (share) => fixed(isKnown(share) ? share * 100 : null, 2);

export const milliseconds = (seconds) => fixed(isKnown(seconds) ? seconds * 1000 : null, 1);

export const perSecond = (value) => fixed(value, 1);

const WHOLE = new Intl.NumberFormat("en");

export const whole = (value) => isKnown(value) ? WHOLE.format(value) : DASH;

/** 0.21 ms, 16 ms, 1.2 s */
export function shortTime(seconds) {
  if (!isKnown(seconds)) return DASH;
  if (seconds >= 1) return `${seconds.toPrecision(2)} s`;
  if (seconds >= 1e-3) return `${Number((seconds * 1e3).toPrecision(2))} ms`;
  return `${Number((seconds * 1e6).toPrecision(2))} µs`;
}

/** How long that is: 42 s, 17 min, 3 h, 12 d */
export function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${seconds} s`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

export const hex = (ssrc) => `0x${ssrc.toString(16).padStart(8, "0")}`;

/** How bad a share of lost packets is. */
export function lossClass(share) {
  if (!isKnown(share) || share < 0.01) return "";
  return share < 0.05 ? "warn" : "bad";
}
