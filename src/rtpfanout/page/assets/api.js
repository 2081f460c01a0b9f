/* What the server is asked, with the token that it may want. */

const TOKEN = "rtpfanout-token";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** For this tab alone, and until it is closed. */
export function setToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

export function request(path, parameters, signal) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== 0 && value !== false && value !== null) query.set(name, value === true ? "1" : value);
  }
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(`page/api/${path}?${query}`, { headers, signal, cache: "no-store" });
}

/** JSON. Throws Refused, and what fetch does where nobody answers. */
export async function ask(path, parameters = {}, signal = undefined) {
  const seconds = AbortSignal.timeout(10_000);
  const response = await request(path, parameters, signal ? AbortSignal.any([signal, seconds]) : seconds);
  const answer = await response.json();
  if (!response.ok) throw new Refused(response.status, answer.error ?? response.statusText);
  return answer;
}
