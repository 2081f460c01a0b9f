/* Elements, and changes of them: only what differs is written. */

const SVG = "http://www.w3.org/2000/svg";

/** An element; `content` are elements and texts. Properties are set, what has a dash or is of ARIA
 * is an attribute. Nothing is ever read as HTML. */
export function el(tag, properties = {}, ...content) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role" || name === "for" || name === "scope") {
      made.setAttribute(name, value);
    } else {
      made[name] = value;
    }
  }
  made.append(...content.filter((each) => each !== null && each !== undefined));
  return made;
}

export function svg(tag, attributes = {}, ...content) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...content);
  return made;
}

export function icon(name) {
  return svg("svg", { "aria-hidden": "true" }, svg("use", { href: `#${name}` }));
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** `parent` has these children in this order; those that stay are not touched. */
export function setChildren(parent, children) {
  children.forEach((child, place) => {
    const there = parent.children[place];
    if (there !== child) parent.insertBefore(child, there ?? null);
  });
  while (parent.children.length > children.length) parent.lastElementChild.remove();
}

/** Texts and commands: what stands between backticks is a command. */
export function withCommands(text) {
  return text.split("`").map((part, i) => i % 2 ? el("code", { textContent: part }) : part);
}

const said = () => document.getElementById("said");

/** To be read out. */
export function say(text) {
  setText(said(), text);
}

/** A command with a button that copies it. */
export function lineToCopy(text) {
  const code = el("code", { tabIndex: 0, textContent: text });
  const button = el("button", { type: "button", textContent: "Copy", "aria-label": `Copy: ${text}` });
  button.addEventListener("click", async () => {
    const copied = await copy(code);
    button.textContent = copied ? "Copied" : "Press Ctrl+C";
    say(copied ? "Copied" : "Selected: press Control C");
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return el("div", { className: "line-to-copy" }, code, button);
}

async function copy(node) {
  try { // which only has leave where the page came by HTTPS or is on this host
    await navigator.clipboard.writeText(node.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(node);
    return document.execCommand("copy");
  }
}
