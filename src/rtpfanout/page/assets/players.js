/* Lines that show a session in a player, ready to copy. */

import { el, lineToCopy } from "./dom.js";

export const quoted = (text) => /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

const bracketed = (host) => host.includes(":") ? `[${host}]` : host;

const isLoopback = (host) => host === "::1" || host.startsWith("127.") || host === "localhost";

/** By RTSP where that is served; else by a subscription, and the SDP that players open. */
export function playersOf(session, viewer, rtsp) {
  const name = session.name || session.session_id;
  return rtsp ? byRtsp(name, rtsp) : bySdp(name, viewer);
}

function byRtsp(name, { scheme, port, host }) {
  const here = bracketed(host || location.hostname.replace(/^\[|\]$/g, ""));
  const url = `${scheme}://${here}:${port}/${name.split("/").map(encodeURIComponent).join("/")}`;
  return list([
    ["ffplay", `ffplay ${quoted(url)}`],
    ["GStreamer", `gst-launch-1.0 playbin3 uri=${quoted(url)}`],
    ["OpenCV", `cv2.VideoCapture(${JSON.stringify(url)}, cv2.CAP_FFMPEG)`],
    ["VLC", `vlc ${quoted(url)}`],
  ], "Each asks the server by RTSP, and is a subscriber for as long as it plays.");
}

function bySdp(name, viewer) {
  const file = `${name.replaceAll(/[^\w.-]+/g, "-")}.sdp`;
  const isHere = !viewer || isLoopback(viewer);
  const to = `${isHere ? "127.0.0.1" : bracketed(viewer)}:6000`;
  const where = isHere
    ? "On the server's host: subscribe, then open the file with a player."
    : "Subscribe on the server's host; the player's computer, which this browser runs on, needs the file.";
  return list([
    ["Subscribe", `rtpfanout subscriber add ${quoted(name)} ${to} --sdp ${file}`],
    ["ffplay", `ffplay -protocol_whitelist file,udp,rtp ${file}`],
    ["GStreamer", `gst-launch-1.0 filesrc location=${file} ! sdpdemux ! decodebin ! autovideosink`],
    ["OpenCV", `OPENCV_FFMPEG_CAPTURE_OPTIONS='protocol_whitelist;file,udp,rtp' python3 -c "import cv2; print(cv2.VideoCapture('${file}').read()[0])"`],
    ["VLC", `vlc ${file}`],
  ], where);
}

function list(lines, note) {
  return [
    el("p", { className: "note", textContent: note }),
    el("dl", { className: "players" }, ...lines.flatMap(([title, line]) => [el("dt", { textContent: title }), el("dd", {}, lineToCopy(line))])),
  ];
}
