// Fills the page from repeated requests to /v1/metrics/summary and, for what is wrong, /v1/diagnostics.
//
// Data flows one way: a request sets `data` or `failing`; paint() builds the sections' elements from `data` and `view`,
// and patch() changes only what differs on the page. The keyboard focus, scroll positions and open lists therefore
// survive a refresh, and nothing is announced unless it changed. Texts from the service become text, never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
// All URLs are relative to the page, so that it also works under a proxy's prefix.
const service = new URL("../", document.baseURI).href.replace(/\/$/, "");

// A summary may take a while on a large file; an answer later than this counts as none.
const PATIENCE = 20_000;
// Seconds until the first, second, … retry while the service does not answer.
const TRIES = [2, 3, 5, 10, 15];

const defaults = {
  range: 3600, refresh: 15, operation: "", baseline: "", candidate: "", sort: "-count", split: "apart",
  memory: "rss_bytes",
};
const view = { ...defaults };
const unfolded = new Set(); // the lists that are unfolded, by key
const charts = new Map();   // by key: what a chart shows at a position, for the pointer
let data = null;            // the latest summary
let diagnosis = null;       // the latest findings: {status, findings}, or {refused} for callers who may not see them
let arrived = null;         // when it arrived
let failing = null;         // {since, tries, message} from the first failure to the next success
let locked = null;          // why a token is asked for
let settled = "";           // the operation shown while none is selected: it stays when another becomes more frequent
let timer = 0;
let next = 0;               // when the timer fires
let running = null;
let announced = 0;

// The user's choices, kept in the URL, so that a link shows the same

function readAddress() {
  const sent = new URLSearchParams(location.hash.slice(1));
  Object.assign(view, defaults);
  for (const name of ["operation", "baseline", "candidate", "sort"]) view[name] = sent.get(name) ?? defaults[name];
  const ranges = [...document.getElementsByName("range")];
  if (ranges.some((input) => input.value === sent.get("range"))) view.range = Number(sent.get("range"));
  if ([...$("refresh").options].some((option) => option.value === sent.get("refresh"))) {
    view.refresh = Number(sent.get("refresh"));
  }
  if (sent.get("split") === "together") view.split = "together";
  if (sent.get("memory") in memoryMetrics) view.memory = sent.get("memory");
  for (const input of ranges) input.checked = Number(input.value) === view.range;
  $("refresh").value = view.refresh;
}

function writeAddress() {
  const kept = new URLSearchParams();
  for (const name of Object.keys(view)) if (view[name] !== defaults[name]) kept.set(name, view[name]);
  history.replaceState(null, "", kept.size ? "#" + kept : location.pathname + location.search);
}

// Access: where the service needs a token, the page asks for one and keeps it until its tab is closed

const KEPT = "reprise token";

/** A request with the token, if there is one. Without credentials, so that the browser does not ask for a password. */
function ask(path, options = {}) {
  const token = sessionStorage.getItem(KEPT);
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  return fetch(service + path, { cache: "no-store", credentials: "omit", ...options, headers });
}

/** Asks for a token if this answer says that one is needed, or a better one. */
function isRefused(answer, problem) {
  if (answer.status !== 401 && answer.status !== 403) return false;
  const hasToken = sessionStorage.getItem(KEPT) !== null;
  locked = !hasToken ? "This service needs a token."
    : answer.status === 401 ? "The token is not valid: it may be mistyped, expired or revoked."
    : problem?.required_scope ? `The token lacks the scope ${problem.required_scope}.`
    : problem?.detail ?? "The token is not sufficient.";
  if (answer.status === 401) sessionStorage.removeItem(KEPT);
  return true;
}

function useToken(text) {
  const token = text.trim();
  // A header cannot contain anything else, and no token does.
  if (!/^[\x21-\x7E][\x20-\x7E]*$/.test(token)) {
    locked = "This is not a token: it contains characters that no token has.";
    return paintState();
  }
  sessionStorage.setItem(KEPT, token);
  refresh(true);
}

/** Also everything that was read with it. */
function forgetToken() {
  sessionStorage.removeItem(KEPT);
  location.reload();
}

// Requests

/** byHand: the user asked for it, so the outcome is announced. */
async function refresh(byHand = false) {
  clearTimeout(timer);
  running?.abort();
  const asking = running = new AbortController();
  const limit = setTimeout(() => asking.abort(), PATIENCE);
  const query = new URLSearchParams({ since: new Date(Date.now() - view.range * 1000).toISOString() });
  const isPaired = view.baseline && view.candidate;
  if (isPaired) {
    query.set("baseline", view.baseline);
    query.set("candidate", view.candidate);
  }
  try {
    refreshFindings(asking);
    const answer = await ask(`/v1/metrics/summary?${query}`, { signal: asking.signal });
    const body = await answer.json().catch(() => null);
    if (asking !== running) return;
    if (answer.status === 422 && isPaired) {
      // A link may name invalid variants; the rest of the page is still worth showing.
      view.baseline = view.candidate = "";
      return refresh(byHand);
    }
    locked = null;
    if (isRefused(answer, body)) {
      failing = null;
      return;
    }
    if (!answer.ok) throw new Refusal(`${(body?.detail ?? "status").replace(/\.$/, "")} (${answer.status})`);
    if (!body?.buckets) throw new Refusal("it is not a summary");
    const isBack = failing !== null;
    data = body;
    arrived = new Date();
    failing = null;
    paint();
    if (isBack) announce("The service is answering again.");
    else if (byHand || Date.now() - announced > 60_000) announce(`Updated at ${clock(arrived)}.`);
  } catch (error) {
    if (asking !== running) return;
    failing ??= { since: new Date(), tries: 0 };
    failing.tries += 1;
    failing.refusal = error instanceof Refusal ? error.message : null;
  } finally {
    clearTimeout(limit);
    if (asking === running) {
      running = null;
      schedule();
      paintState();
    }
  }
}

/** In a request of their own, because they need another scope, and the rest of the page does not wait for them. */
async function refreshFindings(asking) {
  try {
    const answer = await ask("/v1/diagnostics", { signal: asking.signal });
    const body = await answer.json().catch(() => null);
    if (asking !== running && running) return;
    diagnosis = answer.status === 401 || answer.status === 403 ? { refused: true } : answer.ok ? body : null;
    paint("findings");
  } catch {
    // The summary fails too, and the page says so. The last findings stay, as the last figures do.
  }
}

/** The service answered, but not with a summary. */
class Refusal extends Error {}

/** While the service does not answer, the page keeps trying even if refresh is off, and so recovers by itself. */
function schedule() {
  clearTimeout(timer);
  const seconds = locked ? 0 : failing ? TRIES[Math.min(failing.tries, TRIES.length) - 1] : view.refresh;
  next = seconds && !document.hidden ? Date.now() + seconds * 1000 : 0;
  if (next) timer = setTimeout(refresh, seconds * 1000);
}

function announce(text) {
  announced = Date.now();
  $("live").textContent = text;
}

/** The time of the last refresh, or the outage. The alert changes only when there is something new to say. */
function paintState() {
  document.body.classList.toggle("stale", failing !== null);
  document.title = failing ? "Not answering – Reprise" : "Reprise";
  const shown = arrived && el("span", {}, "Updated ", time(arrived, clock(arrived)));
  patch($("status"), fragment(locked ? "Locked" : failing ? "Not connected" : shown || "Loading…"));
  paintAccess();
  $("outage").hidden = !failing;
  if (!failing) {
    $("outage-text").textContent = "";
    return;
  }
  const what = failing.refusal
    ? `The service has answered with an error since ${clock(failing.since)}: ${failing.refusal}.`
    : `The service has not answered since ${clock(failing.since)}.`;
  const kept = arrived ? ` The figures below are those of ${clock(arrived)}.` : " There are no figures yet.";
  const text = `${what}${kept} Retrying automatically.`;
  if ($("outage-text").textContent !== text) $("outage-text").textContent = text;
  countDown();
}

/** The form for a token. It is not touched while it stays, so that what is typed stays too. */
function paintAccess() {
  const isNew = locked !== null && $("access").hidden;
  $("access").hidden = locked === null;
  if ($("access-text").textContent !== (locked ?? "")) $("access-text").textContent = locked ?? "";
  if (locked === null) $("token").value = "";
  if (isNew) $("token").focus();
  $("leave").hidden = sessionStorage.getItem(KEPT) === null;
}

function countDown() {
  if (!failing) return;
  const left = Math.max(0, Math.ceil((next - Date.now()) / 1000));
  $("outage-next").textContent = running || !next ? "asking…" : `next try in ${left} s`;
}

// Building elements

function el(name, attributes, ...children) { return fill(document.createElement(name), attributes, children); }

function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (known(value) && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => known(child) && child !== false && child !== ""));
  return made;
}

function fragment(...children) { return fill(document.createDocumentFragment(), {}, children); }

/** Makes the children of `host` equal to those of `made`, and keeps every element that is already there. */
function patch(host, made) {
  const keyed = new Map();
  for (const child of host.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  let at = host.firstChild;
  for (const wanted of [...made.childNodes]) {
    const key = wanted.dataset?.key;
    const kept = key ? keyed.get(key) : at?.dataset?.key ? null : at;
    if (kept?.nodeName !== wanted.nodeName) {
      host.insertBefore(wanted, at);
      continue;
    }
    keyed.delete(key);
    if (kept === at) at = at.nextSibling;
    else host.insertBefore(kept, at);
    if (kept.nodeType === Node.TEXT_NODE) {
      if (kept.data !== wanted.data) kept.data = wanted.data;
      continue;
    }
    for (const { name, value } of wanted.attributes) {
      if (kept.getAttribute(name) !== value) kept.setAttribute(name, value);
    }
    for (const { name } of [...kept.attributes]) {
      if (!wanted.hasAttribute(name) && name !== "open") kept.removeAttribute(name);
    }
    const chosen = wanted.value;
    patch(kept, wanted);
    if (kept.nodeName === "SELECT" && kept.value !== chosen) kept.value = chosen;
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

/** Puts a section's elements on the page. */
function put(id, ...children) {
  const focused = document.activeElement;
  patch($(id), fragment(children));
  // A row that moved to another position has lost it.
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

// Numbers for people. Units follow a no-break space.

const NBSP = "\u00a0";
const known = (value) => value !== null && value !== undefined;
const number = (value, options) => new Intl.NumberFormat(undefined, options).format(value).replace("-", "−");
const fixed = (value, digits) => number(value, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const count = (value) => known(value) ? number(value) : "–";
const several = (value, one, many) => `${count(value)}${NBSP}${value === 1 ? one : many}`;

/** Three significant digits. */
function short(value) {
  const size = Math.abs(value);
  return fixed(value, size >= 99.95 || size === 0 ? 0 : size >= 9.995 ? 1 : 2);
}

function percent(value, digits = 1) {
  return known(value) ? fixed(value, value === 0 || value === 100 ? 0 : digits) + NBSP + "%" : "–";
}

const ratio = (value) => percent(known(value) ? value * 100 : null);

function secondsUnit(value) {
  const size = Math.abs(value);
  return size >= 600 ? [60, "min"] : size >= 0.9995 ? [1, "s"] : size >= 0.0009995 ? [1e-3, "ms"] : [1e-6, "µs"];
}

function bytesUnit(value) {
  return value >= 999.5e9 ? [1e12, "TB"] : value >= 999.5e6 ? [1e9, "GB"] : value >= 999.5e3 ? [1e6, "MB"]
    : value >= 1000 ? [1e3, "kB"] : [1, "B"];
}

function seconds(value) {
  if (!known(value)) return "–";
  const [size, unit] = value === 0 ? [1, "s"] : secondsUnit(value);
  return short(value / size) + NBSP + unit;
}

function bytes(value) {
  if (!known(value)) return "–";
  const [size, unit] = bytesUnit(value);
  return (size === 1 ? count(Math.round(value)) : short(value / size)) + NBSP + unit;
}

/** Bytes, with the exact number on hover. */
function exactly(value) {
  if (!known(value) || value < 1000) return bytes(value);
  return el("span", { title: several(Math.round(value), "byte", "bytes") }, bytes(value));
}

const errors = (value) => value ? el("span", { class: "bad" }, count(value)) : "0";
const clock = (date) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const time = (date, text) => el("time", { datetime: date.toISOString(), title: date.toISOString() }, text);

/** An instant in local time; with its date if that is not today. */
function when(iso) {
  const date = new Date(iso);
  const isToday = new Date().toDateString() === date.toDateString();
  const day = isToday ? "" : date.toLocaleDateString([], { day: "numeric", month: "short" }) + ", ";
  return time(date, day + clock(date));
}

/** A name that may break after its underscores, dots and slashes. */
const breakable = (text) => text.split(/(?<=[_./])/).flatMap((part, place) => place ? [el("wbr", {}), part] : part);

function uptime(value) {
  const [d, h, m] = [Math.floor(value / 86400), Math.floor(value / 3600) % 24, Math.floor(value / 60) % 60];
  const parts = d ? [d, "d", h, "h"] : h ? [h, "h", m, "min"] : m ? [m, "min"] : [Math.floor(value), "s"];
  return parts.join(NBSP);
}

// Parts that several sections use

/** columns: {title, kind: "n" for numbers or "text", cell(row), sort}; the cells of the first are row headers. */
function table(key, caption, columns, rows, rowAttributes = () => ({}), asCards = false) {
  // When laid out as cards, its elements are not a table to a screen reader unless they have the roles of one.
  const role = (text) => asCards ? text : null;
  const head = (column) => {
    const sorted = column.sort && view.sort.replace("-", "") === column.sort;
    return el("th", {
      scope: "col", class: column.kind, role: role("columnheader"),
      "aria-sort": sorted ? (view.sort.startsWith("-") ? "descending" : "ascending") : null,
    }, !column.sort ? column.title
      : el("button", { type: "button", "data-do": "sort", "data-key": "sort-" + column.sort }, column.title));
  };
  const cells = (row) => columns.map((column, place) => place === 0
    ? el("th", { scope: "row", role: role("rowheader") }, column.cell(row))
    : el("td", { class: column.kind, role: role("cell"), "data-title": role(column.title) },
      asCards ? el("div", {}, column.cell(row)) : column.cell(row)));
  const body = rows.map((row) => el("tr", { role: role("row"), ...rowAttributes(row) }, cells(row)));
  return el("div", {
    class: asCards ? "scroll cards" : "scroll", tabindex: "0", role: "region", "aria-label": caption, "data-key": key,
  }, el("table", { role: role("table") }, el("caption", {}, caption),
    el("thead", { role: role("rowgroup") }, el("tr", { role: role("row") }, columns.map(head))),
    el("tbody", { role: role("rowgroup") }, body)));
}

/** An empty state: what is missing, and the request that adds it. */
function empty(text, command) {
  return [el("p", { class: "empty" }, text), command && el("div", { class: "command" },
    el("pre", { tabindex: "0" }, el("code", {}, command)),
    el("button", { type: "button", class: "copy", "data-do": "copy" }, "Copy"))];
}

function curl(method, path, body) {
  return `curl -X ${method} '${service}${path}' \\
  -H 'Content-Type: application/json' \\
  -d '${JSON.stringify(body)}'`;
}

function bar(part) {
  return svg("svg", { class: "bar", viewBox: "0 0 72 8", "aria-hidden": "true" },
    svg("rect", { width: 72, height: 8, rx: 4 }),
    part > 0 && svg("rect", { class: "of", width: Math.max(3, part * 72).toFixed(1), height: 8, rx: 4 }));
}

// Charts: inline SVG in real pixels, each summarized by its label and given in full by a table

/** A line through neighbours; it breaks where more than two steps are empty, and an isolated value becomes a dot. */
function line(kind, values, x, y) {
  let path = "";
  let dots = "";
  let last = -9;
  values.forEach((value, place) => {
    if (!known(value)) return;
    const isJoined = place - last <= 3;
    const at = `${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
    if (isJoined || values.slice(place + 1, place + 4).some(known)) path += (isJoined ? "L" : "M") + at;
    else dots += `M${at}h.01`;
    last = place;
  });
  return [path && svg("path", { class: "stroke " + kind, d: path }),
    dots && svg("path", { class: "stroke dots " + kind, d: dots })];
}

/** Steps as wide as their buckets, between two series or, without the lower one, as a line. */
function steps(high, low, left, right, y) {
  let path = "";
  let start = -1;
  for (let place = 0; place <= high.length; place += 1) {
    const isThere = known(high[place]);
    if (isThere && start < 0) start = place;
    if (isThere || start < 0) continue;
    path += `M${left(start).toFixed(1)} ${y(high[start]).toFixed(1)}`;
    for (let p = start; p < place; p += 1) path += `V${y(high[p]).toFixed(1)}H${right(p).toFixed(1)}`;
    if (low) {
      for (let p = place - 1; p >= start; p -= 1) path += `V${y(low[p]).toFixed(1)}H${left(p).toFixed(1)}`;
      path += "Z";
    }
    start = -1;
  }
  return path;
}

/** Whether a bucket is not over yet, or began before the range, so that its counts are partial. */
function isPartial(place) {
  const start = Date.parse(data.buckets[place]);
  return start < Date.parse(data.since) || start + data.step_seconds * 1000 > Date.parse(data.until);
}

/** Counts of whole buckets only, because a bucket that is not over would look like a collapse. */
const whole = (counts) => counts.map((value, place) => isPartial(place) ? null : value);

/** A sparkline from zero up. The figures next to it give the values, so it is not read out. */
function spark(values) {
  const most = Math.max(...values.filter(known), 0) || 1;
  const width = Math.max(values.length - 1, 1);
  return svg("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "axis", d: "M0 23.5H100" }),
    line("", values, (place) => 1 + place / width * 98, (value) => 22 - value / most * 19));
}

/** A round number that gives about `wanted` steps up to `most`. */
function roundStep(most, wanted) {
  const raw = most / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 2.5, 5, 10].find((part) => part * power >= raw * 0.999);
}

const MINUTE = 60_000;
const DAY = 1440 * MINUTE;
const timeSteps = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880].map((minutes) => minutes * MINUTE);

/** Round local times between two instants. */
function timeMarks(from, to, room) {
  const step = timeSteps.find((candidate) => (to - from) / candidate <= room) ?? timeSteps.at(-1);
  const marks = [];
  for (let at = new Date(from).setHours(0, 0, 0, 0); at < to; at += step) if (at >= from) marks.push(new Date(at));
  return marks.map((date) => [date.getTime(), date.getHours() + date.getMinutes() === 0 && to - from > DAY / 2
    ? date.toLocaleDateString([], { weekday: "short", day: "numeric" })
    : date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })]);
}

/**
 * A figure with its key, what the pointer is on, and its values as a table.
 * - what.series: {name, values, format} of the table, and of the lines unless `bands` draws the first three
 * - what.unit: of the axis; what.top: its end if it is fixed; what.counts: drawn as bars below, called what.counted
 * - what.stepped: drawn as wide as its buckets, with a gap where there is nothing
 */
function chart(id, key, what) {
  const width = Math.max(240, Math.floor($(id).clientWidth));
  const height = what.bands || what.counts ? 230 : 170;
  const [left, top, bottom] = [58, 10, what.counts ? height - 58 : height - 22];
  const starts = data.buckets.map((iso) => Date.parse(iso));
  const step = data.step_seconds * 1000;
  const [from, to] = [starts[0] ?? 0, (starts.at(-1) ?? 0) + step];
  const place = (at) => left + (at - from) / (to - from) * (width - left - 4);
  const all = what.series.flatMap((series) => series.values).filter(known);
  const most = what.top ?? (Math.max(...all, 0) || 1);
  const [size, unit] = what.unit(most);
  const rise = roundStep(most / size, 4) * size;
  const end = what.top ?? Math.ceil(most / rise - 1e-9) * rise;
  const y = (value) => bottom - value / end * (bottom - top);
  const marks = Array.from({ length: Math.round(end / rise) + 1 }, (_, index) => index * rise).map((value) => [
    svg("line", { class: value === 0 ? "axis" : "grid", x1: left, x2: width, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" },
      number(value / size, { maximumFractionDigits: 2 }) + NBSP + unit)]);
  const times = timeMarks(from, to, (width - left) / 76).map(([at, text]) => {
    const anchor = place(at) < left + 22 ? "start" : place(at) > width - 26 ? "end" : "middle";
    return [svg("line", { class: "axis", x1: place(at), x2: place(at), y1: bottom, y2: bottom + 4 }),
      svg("text", { x: place(at), y: bottom + 18, "text-anchor": anchor }, text)];
  });
  const [begin, finish] = [(p) => place(starts[p]), (p) => place(starts[p] + step)];
  const middle = (p) => (begin(p) + finish(p)) / 2;
  const shapes = [];
  if (what.bands) {
    const [p50, p90, p99] = what.series.map((series) => series.values);
    shapes.push(svg("path", { class: "outer", d: steps(p99, p90, begin, finish, y) }),
      svg("path", { class: "inner", d: steps(p90, p50, begin, finish, y) }),
      svg("path", { class: "stroke", d: steps(p50, null, begin, finish, y) }));
  } else {
    what.series.forEach((series, index) => shapes.push(what.stepped
      ? svg("path", { class: "stroke s" + index, d: steps(series.values, null, begin, finish, y) })
      : line("s" + index, series.values, middle, y)));
  }
  if (what.counts) {
    const largest = Math.max(...what.counts, 1);
    shapes.push(svg("text", { x: left - 8, y: height - 6, "text-anchor": "end" }, what.counted ?? "count"));
    shapes.push(what.counts.map((value, p) => {
      const tall = Math.max(1.5, value / largest * 24);
      return value > 0 && svg("rect", {
        class: isPartial(p) ? "volume partial" : "volume",
        x: begin(p).toFixed(1), width: Math.max(1, finish(p) - begin(p) - 1).toFixed(1),
        y: (height - 2 - tall).toFixed(1), height: tall.toFixed(1),
      });
    }));
  }
  const counted = { name: what.counted ?? "count", values: what.counts, format: count };
  const columns = what.counts ? [...what.series, counted] : what.series;
  const partial = (p) => !isPartial(p) ? "" : starts[p] + step > Date.parse(data.until) ? " (so far)" : " (in part)";
  charts.set(key, {
    left, width, starts, middle, top, bottom: what.counts ? height : bottom,
    place: (pixel) => Math.floor((pixel - left) / (width - left - 4) * (to - from) / step),
    says: (p) => `${moment(starts[p])}${partial(p)}  `
      + columns.map((column) => `${column.name} ${column.format(column.values[p])}`).join(" · "),
  });
  const list = "data-" + key;
  const filled = starts.map((_, p) => p).filter((p) => what.series.some((series) => known(series.values[p])));
  return el("figure", { "data-key": key, "data-chart": key },
    svg("svg", {
      class: "chart", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": what.label,
    }, marks, times, shapes),
    what.key && el("ul", { class: "key" }, what.key.map(([sample, text]) => el("li", {}, sample, text))),
    el("p", { class: "readout", "aria-hidden": "true" }),
    el("details", { "data-key": list, open: unfolded.has(list) }, el("summary", {}, "The same as a table"),
      // Hundreds of cells are only built when the table is opened.
      unfolded.has(list) && table("values-" + key, what.label, [
        { title: "From", cell: (p) => [time(new Date(starts[p]), moment(starts[p])), partial(p)] },
        ...columns.map((column) => ({
          title: column.name, kind: "n", cell: (p) => column.format(column.values[p]),
        }))], filled.reverse())));
}

/** The time of a bucket, with its day if the range has several. */
function moment(at) {
  const day = view.range > DAY ? { weekday: "short", day: "numeric" } : {};
  const second = data.step_seconds % 60 ? { second: "2-digit" } : {};
  return new Date(at).toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit", ...second });
}

const keyLine = (index) => svg("svg", { viewBox: "0 0 20 10", "aria-hidden": "true" },
  svg("path", { class: `stroke s${index}`, d: "M1 5H19" }));
const keyBand = (kind) => svg("svg", { viewBox: "0 0 20 10", "aria-hidden": "true" },
  svg("rect", { class: kind, width: 20, height: 10, rx: 2 }));

// The sections

const parts = {
  findings, tiles, operations, detail, comparison, cache, memory, sessions, history: historyPart, runs, requests,
};

function paint(...only) {
  if (!data) return;
  const names = only.length ? only : Object.keys(parts);
  $("main").setAttribute("aria-busy", "false");
  for (const id of names) put(id, parts[id]());
  if (only.length) return;
  $("version").textContent = `${data.service.version} · up ${uptime(data.service.uptime_seconds)}`;
  const isOff = data.monitoring === "disabled";
  $("notice").hidden = !isOff;
  put("notice", isOff ? [el("p", {}, "Monitoring is off: new samples are not stored. To turn it on:"),
    empty("", curl("PATCH", "/v1/config", { enable_monitoring: true }))[1]] : []);
}

const severities = { critical: ["✖", "Critical"], warning: ["▲", "Warning"], info: ["●", "Note"] };

/** What is wrong, the worst first; nothing if all is well or there are only notes. */
function findings() {
  if (diagnosis?.refused) return [el("p", { class: "note" }, "A token with the scope admin also shows findings here.")];
  if (!diagnosis?.findings || diagnosis.status === "ok") return [];
  return diagnosis.findings.map((finding) => {
    const key = `finding-${finding.code}-${finding.title}`;
    const [icon, word] = severities[finding.severity] ?? severities.info;
    return el("details", { class: `finding ${finding.severity}`, "data-key": key, open: unfolded.has(key) },
      el("summary", {}, el("b", {}, el("span", { "aria-hidden": "true" }, icon), ` ${word}`), ` ${finding.title}`),
      el("p", {}, finding.detail),
      el("dl", { class: "facts" }, Object.entries(finding.evidence).map(([name, value]) =>
        el("div", {}, el("dt", {}, breakable(name)), el("dd", {}, measure(name, value))))),
      el("p", {}, el("b", {}, "What to do: "), finding.remedy));
  });
}

/** A number by the unit at the end of its name. */
function measure(name, value) {
  return name.endsWith("_bytes") ? exactly(value) : name.endsWith("_seconds") ? seconds(value)
    : name.endsWith("_percent") ? percent(value) : name.endsWith("_ratio") ? ratio(value) : count(value);
}

function tiles() {
  const { count: timed, error_count: failed, series: timings } = data.timing_totals;
  const { hits, misses, hit_ratio: hitRate } = data.cache.totals;
  const own = data.memory.find((process) => process.name === "reprise");
  const { runs: ran, failures: broken, removed } = data.maintenance.totals;
  return [
    ["Operations timed", count(timed), failed
      ? [el("span", { class: "bad" }, several(failed, "error", "errors")), ` · ${percent(failed / timed * 100, 2)}`]
      : timed ? "no errors" : "none in this range", whole(timings.count)],
    ["Cache hit rate", ratio(hitRate), hits + misses
      ? `${several(hits, "hit", "hits")} · ${several(misses, "miss", "misses")}` : "no look-ups in this range",
      data.cache.series.hit_ratio],
    ["Sessions", count(data.sessions.session_count),
      [several(data.sessions.state_key_count, "key", "keys"), " · ", exactly(data.sessions.state_size_bytes)],
      data.sessions.series.session_count],
    ["History items", count(data.history.item_count), exactly(data.history.size_bytes), null],
    ["Memory of the service", bytes(own?.rss_bytes.latest),
      own ? `${percent(own.percent.latest)} of the machine` : "not sampled in this range", own?.series.rss_bytes],
    ["Removed by cleanup", count(removed), ran
      ? [`rows, in ${several(ran, "run", "runs")}`,
        broken > 0 && el("span", { class: "bad" }, ` · ${count(broken)} failed`)] : "no runs in this range", null],
  ].map(([name, value, more, values]) => el("div", { class: "tile" },
    el("h3", {}, name), el("b", {}, value), el("span", {}, more), values?.some((value) => value > 0) && spark(values)));
}

const operationColumns = [
  { title: "Operation", sort: "name" }, { title: "p50 over time" }, { title: "Count", sort: "count", kind: "n" },
  { title: "Errors", sort: "error_count", kind: "n" },
  { title: "p50", sort: "p50_seconds", kind: "n" }, { title: "p90", sort: "p90_seconds", kind: "n" },
  { title: "p95", sort: "p95_seconds", kind: "n" }, { title: "p99", sort: "p99_seconds", kind: "n" },
  { title: "Max", sort: "max_seconds", kind: "n" }, { title: "Hit rate", sort: "cache_hit_ratio", kind: "n" },
];

function operationCell(column, row) {
  const value = row[column.sort];
  switch (column.sort) {
    case "name": return el("button", {
      type: "button", class: "pick", "data-do": "pick", "data-value": row.key, "data-key": "op-" + row.key,
      "aria-pressed": String(row.key === chosenOperation().key),
    }, breakable(value), row.part && el("small", {}, row.part));
    case undefined: return spark(row.series.p50_seconds);
    case "count": return count(value);
    case "error_count": return errors(value);
    case "cache_hit_ratio": return ratio(value);
    default: return seconds(value);
  }
}

/** What has its own percentiles: each variant, hits and misses separately, because those of a mixture mean little. */
function operationRows() {
  return data.timings.flatMap((timing) => {
    if (timing.parts.length === 0 || view.split === "together") return [{ ...timing, key: timing.name, part: "" }];
    return timing.parts.map((part) => {
      const lookups = (cache) => timing.parts.filter((each) => each.variant === part.variant && each.cache === cache)
        .reduce((n, each) => n + each.count, 0);
      const [hits, misses] = [lookups("hit"), lookups("miss")];
      const name = [part.variant ?? "no variant", part.cache].filter(known).join(" · ");
      return {
        ...part, name: timing.name, part: name, key: `${timing.name} · ${name}`,
        cache_hit_ratio: part.cache ? hits / (hits + misses) : null,
      };
    });
  });
}

function operations() {
  if (data.timings.length === 0) {
    return empty("No operation was timed in this range. Send a timing:", curl("POST", "/v1/samples", {
      kind: "timing", name: "model_load", duration_seconds: 1.52, cache: "miss", variant: "original",
    }));
  }
  const column = view.sort.replace("-", "");
  const sign = view.sort.startsWith("-") ? -1 : 1;
  const compare = (a, b) => typeof a === "string" ? a.localeCompare(b) : (a ?? -1) - (b ?? -1);
  const rows = operationRows().sort((a, b) => sign * compare(a[column], b[column]) || a.key.localeCompare(b.key));
  const chosen = chosenOperation();
  const exact = data.resolution === "raw" ? "Percentiles are exact."
    : `Percentiles are within 1${NBSP}%, from roll-ups by ${data.resolution.replace("_", " ")}.`;
  const some = data.timings_total > data.timings.length
    ? ` The ${count(data.timings.length)} most frequent operations of ${count(data.timings_total)}.` : "";
  const left = data.timings.reduce((n, timing) => n + timing.parts_total - timing.parts.length, 0);
  const cut = left > 0 && view.split === "apart" ? ` ${several(left, "rare part is", "rare parts are")} left out.` : "";
  const splits = { apart: "by variant, with hits and misses separate", together: "all together" };
  return [data.timings.some((timing) => timing.parts_total > 0) && el("div", { class: "picks" },
    el("label", { class: "field" }, "Percentiles ", el("select", { "data-do": "split", autocomplete: "off" },
      Object.entries(splits).map(([split, name]) =>
        el("option", { value: split, selected: split === view.split }, name))))),
  table("operations-table", `Durations by operation. ${exact}${some}${cut}`,
    operationColumns.map((each) => ({ ...each, cell: (row) => operationCell(each, row) })), rows, (row) => ({
      "data-key": "row-" + row.key, class: row.key === chosen.key ? "on" : null, "data-do": "pick",
      "data-value": row.key,
    }))];
}

/** The selected one; if none is selected or it is not in the range, the one that was most frequent at first. */
function chosenOperation() {
  const rows = operationRows();
  const found = (key) => rows.find((row) => row.key === key) ?? rows.find((row) => row.name === key);
  const chosen = found(view.operation) ?? found(settled) ?? rows[0];
  if (chosen && chosen.key !== view.operation) settled = chosen.key;
  return chosen;
}

function detail() {
  const chosen = chosenOperation();
  if (!chosen) return [];
  const { p50_seconds: p50, p90_seconds: p90, p99_seconds: p99, count: counts } = chosen.series;
  const facts = [["p50", chosen.p50_seconds], ["p90", chosen.p90_seconds], ["p99", chosen.p99_seconds],
    ["Min", chosen.min_seconds], ["Mean", chosen.mean_seconds], ["Max", chosen.max_seconds]];
  return [el("h3", {}, `${chosen.key} over time`),
    el("dl", { class: "facts" }, facts.map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, seconds(value))))),
    chart("detail", "detail-chart", {
      label: `Durations of ${chosen.key} over time: median ${seconds(chosen.p50_seconds)}, 90th percentile `
        + `${seconds(chosen.p90_seconds)}, 99th percentile ${seconds(chosen.p99_seconds)}, `
        + several(chosen.count, "sample", "samples"),
      bands: true, unit: secondsUnit, counts,
      series: [{ name: "p50", values: p50 }, { name: "p90", values: p90 }, { name: "p99", values: p99 }]
        .map((series) => ({ ...series, format: seconds })),
      key: [[keyLine(0), "p50"], [keyBand("inner"), "p50 to p90"], [keyBand("outer"), "p90 to p99"]],
    })];
}

/** "99.4–99.6 %"; with signs unless both ends are at least zero. */
function interval(low, high) {
  const isPlain = low >= 0 && high >= 0;
  const sign = (value) => (value > 0 && !isPlain ? "+" : "") + fixed(value, 1);
  return (isPlain ? `${sign(low)}–${sign(high)}` : `${sign(low)} to ${sign(high)}`) + `${NBSP}%`;
}

/** Why a change has no interval. */
const noInterval = {
  too_few_samples: "no CI: too few samples",
  baseline_is_zero: `no CI: the original may be 0${NBSP}s`,
};

/** The verdict on the median in words. A change is negative if the candidate is faster. */
function verdict(row) {
  const change = row.change_percent.p50;
  const range = row.confidence_interval_percent.p50;
  const sure = (low, high) =>
    ` (${range ? `95${NBSP}% CI ${interval(low, high)}` : noInterval[row.interval_reasons.p50]})`;
  switch (row.verdict) {
    case "faster":
      return [el("span", { class: "good" }, `faster by ${percent(-change)}`), sure(-range?.[1], -range?.[0])];
    case "slower":
      // There is no percentage change from 0 s.
      return [el("span", { class: "bad" }, known(change) ? `slower by ${percent(change)}` : `slower than 0${NBSP}s`),
        sure(range?.[0], range?.[1])];
    case "no_difference":
      return [el("span", { class: "soft" }, "no significant difference"), sure(range?.[0], range?.[1])];
    default:
      return el("span", { class: "soft" }, "too few samples to tell: it takes 7 of each");
  }
}

/** A change, and its interval or the reason why there is none. */
function change(row, percentile) {
  const value = row.change_percent[percentile];
  const range = row.confidence_interval_percent[percentile];
  return [known(value) ? (value > 0 ? "+" : "") + percent(value) : "–", el("small", {},
    range ? `95${NBSP}% CI ${interval(range[0], range[1])}` : noInterval[row.interval_reasons[percentile]])];
}

/** The interval on a scale from −100 % to +100 %. */
function whisker(row) {
  const change = row.change_percent.p50;
  const range = row.confidence_interval_percent.p50;
  if (!known(change)) return "–";
  const x = (value) => (66 + Math.max(-100, Math.min(100, value)) * 0.6).toFixed(1);
  return svg("svg", { class: "whisker " + row.verdict, viewBox: "0 0 132 20", "aria-hidden": "true" },
    svg("line", { x1: 6, x2: 126, y1: 10, y2: 10, opacity: 0.4 }), svg("line", { x1: 66, x2: 66, y1: 2, y2: 18 }),
    range && svg("line", { class: "ci", x1: x(range[0]), x2: x(range[1]), y1: 10, y2: 10 }),
    svg("circle", { cx: x(change), cy: 10, r: 4 }));
}

function comparison() {
  if (data.variants.length < 2 && !data.comparison) {
    const variants = {
      original: [2.1, 2.3, 1.9, 2.2, 2, 2.1, 2], optimized: [0.08, 0.07, 0.09, 0.08, 0.1, 0.09, 0.08],
    };
    return empty("Time an operation in two ways and send each timing with its variant; seven of each can be compared:",
      curl("POST", "/v1/samples", {
        samples: Object.entries(variants).flatMap(([variant, durations]) => durations.map((duration_seconds) => (
          { kind: "timing", name: "quality_scoring", duration_seconds, variant }))),
      }));
  }
  const now = data.comparison ?? { baseline: view.baseline, candidate: view.candidate, items: [] };
  const pick = (name, title) => {
    const names = data.variants.includes(now[name]) || !now[name] ? data.variants : [now[name], ...data.variants];
    return el("label", { class: "field" }, title, " ", el("select", { "data-do": name, autocomplete: "off" },
      !now[name] && el("option", { value: "", selected: true }, "choose"),
      names.map((variant) => el("option", { value: variant, selected: variant === now[name] }, variant))));
  };
  const side = (figures) => [seconds(figures.p50_seconds),
    el("small", {}, `p95 ${seconds(figures.p95_seconds)} · ${several(figures.count, "sample", "samples")}`)];
  const picks = el("div", { class: "picks" }, pick("baseline", "Original"), pick("candidate", "Optimized"));
  if (!data.comparison) return [picks, empty("Choose the variants to compare.")];
  if (now.items.length === 0) return [picks, empty("No operation was timed with both variants in this range.")];
  return [picks, table("comparison-table", "Medians, and the change from original to optimized.", [
    { title: "Operation", cell: (row) => breakable(row.name) },
    { title: `Original (${now.baseline})`, kind: "n", cell: (row) => side(row.baseline) },
    { title: `Optimized (${now.candidate})`, kind: "n", cell: (row) => side(row.candidate) },
    { title: "Improvement", kind: "text", cell: verdict },
    { title: "Change of p50", cell: whisker },
    { title: "of p95", kind: "n", cell: (row) => change(row, "p95") },
  ], now.items, (row) => ({ "data-key": row.name }), true)];
}

function cache() {
  const { items, namespace_count: n, totals, series } = data.cache;
  if (n === 0 && totals.hits + totals.misses === 0) {
    return empty("Nothing has been cached yet. Store a value for half an hour:",
      `curl -X PUT '${service}/v1/cache/scores/entries/song-1' \\\n  -H 'Reprise-TTL: 1800' -d '0.93'`);
  }
  const reasons = (row) => Object.entries(row.misses_by_reason).filter(([, n]) => n > 0)
    .map(([reason, n]) => `${count(n)}${NBSP}${reason}`).join(" · ") || "–";
  const some = n > items.length ? ` The ${count(items.length)} busiest of ${count(n)}.` : "";
  const lookups = series.hits.map((hits, place) => hits + series.misses[place]);
  // The last row holds everything that the others do not name, so that they add up to the tile.
  const rows = [...items];
  const rest = remainder(totals, items);
  if (rest.hits + rest.misses + rest.expirations + rest.evictions + rest.entry_count > 0) rows.push(rest);
  return [chart("cache", "cache-chart", {
    label: "Cache hit rate over time, by the look-ups of each step: " + (known(totals.hit_ratio)
      ? `${ratio(totals.hit_ratio)} of ${several(totals.hits + totals.misses, "look-up", "look-ups")}`
      : "no look-ups in this range"),
    unit: () => [0.01, "%"], top: 1, stepped: true, counts: lookups, counted: "look-ups",
    series: [{ name: "hit rate", values: series.hit_ratio, format: ratio }],
  }), table("cache-table", `Look-ups in this range by namespace, and why they missed.${some}`, [
    {
      title: "Namespace",
      cell: (row) => row.namespace ? breakable(row.namespace) : el("span", { class: "soft" }, "all others"),
    },
    { title: "Hit rate", kind: "n", cell: (row) => [bar(row.hit_ratio), ratio(row.hit_ratio)] },
    { title: "Hits", kind: "n", cell: (row) => count(row.hits) },
    { title: "Misses", kind: "n", cell: (row) => [count(row.misses), row.misses > 0 && el("small", {}, reasons(row))] },
    { title: "Expired", kind: "n", cell: (row) => count(row.expirations) },
    { title: "Evicted", kind: "n", cell: (row) => count(row.evictions) },
    { title: "Entries", kind: "n", cell: (row) => count(row.entry_count) },
    { title: "Size", kind: "n", cell: (row) => exactly(row.size_bytes) },
  ], rows, (row) => ({ "data-key": "namespace-" + (row.namespace ?? "") }))];
}

/** The part of the totals that is not listed: the other namespaces, and those that no longer exist. */
function remainder(totals, items) {
  const left = (pick) => pick(totals) - items.reduce((n, item) => n + pick(item), 0);
  const rest = {};
  for (const member of ["hits", "misses", "expirations", "evictions", "entry_count", "size_bytes"]) {
    rest[member] = left((each) => each[member]);
  }
  rest.hit_ratio = rest.hits + rest.misses > 0 ? rest.hits / (rest.hits + rest.misses) : null;
  rest.misses_by_reason = Object.fromEntries(Object.keys(totals.misses_by_reason)
    .map((reason) => [reason, left((each) => each.misses_by_reason[reason])]));
  return rest;
}

const memoryMetrics = { rss_bytes: "resident (RSS)", vms_bytes: "virtual (VMS)", percent: "share of the machine" };

function memory() {
  if (data.memory.length === 0) {
    return empty("No process reported its memory in this range. Send a sample:", curl("POST", "/v1/samples",
      { kind: "memory", name: "melodai", rss_bytes: 157286400, vms_bytes: 1073741824, percent: 1.9 }));
  }
  // More lines than there are colours and dashes would be indistinguishable.
  const drawn = data.memory.slice(0, 6);
  const format = view.memory === "percent" ? percent : bytes;
  return [el("div", { class: "picks" }, el("label", { class: "field" }, "Drawn ",
    el("select", { "data-do": "memory", autocomplete: "off" }, Object.entries(memoryMetrics).map(([metric, name]) =>
      el("option", { value: metric, selected: metric === view.memory }, name))))),
  chart("memory", "memory-chart", {
    label: `Memory over time, ${memoryMetrics[view.memory]}: `
      + drawn.map((process) => `${process.name} ${format(process[view.memory].latest)}`).join(", "),
    unit: view.memory === "percent" ? () => [1, "%"] : bytesUnit,
    series: drawn.map((process) => ({ name: process.name, values: process.series[view.memory], format })),
    key: drawn.map((process, index) => [keyLine(index), process.name]),
  }), table("memory-table", data.memory_total > data.memory.length
    ? `Memory of ${count(data.memory.length)} of ${count(data.memory_total)} processes.` : "Memory of each process.", [
    { title: "Process", cell: (row) => breakable(row.name) },
    { title: "RSS", kind: "n", cell: (row) => exactly(row.rss_bytes.latest) },
    { title: "mean", kind: "n", cell: (row) => exactly(row.rss_bytes.mean) },
    { title: "most", kind: "n", cell: (row) => exactly(row.rss_bytes.max) },
    { title: "VMS", kind: "n", cell: (row) => exactly(row.vms_bytes.latest) },
    { title: "Share", kind: "n", cell: (row) => percent(row.percent.latest) },
  ], data.memory, (row) => ({ "data-key": row.name }))];
}

function sessions() {
  const { session_count: n, state_key_count: keys, state_size_bytes: size, largest, series } = data.sessions;
  if (n === 0) {
    return empty("There are no sessions. Open one:",
      curl("PUT", "/v1/sessions/tab-7", { state: { auto_generate: false, temperature: 0.8 } }));
  }
  return [el("p", { class: "note" }, `${several(n, "session", "sessions")} with ${several(keys, "key", "keys")}, `,
    exactly(size), ` of state; ${bytes(size / n)} each on average.`),
  chart("sessions", "sessions-chart", {
    label: `Size of all session states over time, now ${bytes(size)}`, unit: bytesUnit,
    series: [{ name: "state", values: series.state_size_bytes, format: bytes }],
  }), table("sessions-table", "The largest sessions.", [
    { title: "Session", cell: (row) => row.id },
    { title: "Keys", kind: "n", cell: (row) => count(row.state_key_count) },
    { title: "State", kind: "n", cell: (row) => exactly(row.state_size_bytes) },
    { title: "History", kind: "n", cell: (row) => count(row.history_count) },
    { title: "Last active", kind: "n", cell: (row) => when(row.last_active_at) },
  ], largest, (row) => ({ "data-key": row.id }))];
}

function historyPart() {
  const { item_count: n, size_bytes: size, by_kind: kinds } = data.history;
  if (n === 0) {
    return empty("No session has a history. With the session opened, append an item:",
      curl("POST", "/v1/sessions/tab-7/history", { kind: "generation", data: { prompt: "a calm piano piece" } }));
  }
  return [table("history-table", `${several(n, "item", "items")}, ${bytes(size)}.`, [
    { title: "Kind", cell: (row) => row.kind ?? el("span", { class: "soft" }, "without a kind") },
    { title: "Items", kind: "n", cell: (row) => count(row.item_count) },
    { title: "Share", kind: "n", cell: (row) => [bar(row.item_count / n), percent(row.item_count / n * 100)] },
  ], kinds)];
}

function runs() {
  if (data.maintenance.totals.runs === 0) {
    return empty("No background task ran in this range. Run them all now:",
      curl("POST", "/v1/maintenance/cleanup", {}));
  }
  const { runs, totals } = data.maintenance;
  const some = totals.runs > runs.length ? `The latest ${count(runs.length)} of ` : "";
  const all = several(totals.runs, "run", "runs");
  return table("runs-table", `${some}${all} in this range, which removed ${several(totals.removed, "row", "rows")}.`, [
    {
      title: "Task",
      cell: (row) => [breakable(row.task), known(row.error) && el("small", { class: "bad" }, row.error)],
    },
    { title: "When", kind: "n", cell: (row) => when(row.started_at) },
    { title: "Why", kind: "left", cell: (row) => row.trigger },
    { title: "Took", kind: "n", cell: (row) => seconds(row.duration_seconds) },
    { title: "Removed", kind: "n", cell: (row) => count(row.removed) },
    { title: "Freed", kind: "n", cell: (row) => exactly(row.freed_bytes) },
  ], runs, (row) => ({ "data-key": "run-" + row.id }));
}

function requests() {
  if (data.requests.length === 0) {
    return empty("No request was timed in this range. New ones appear within seconds. Send one:",
      `curl '${service}/health/ready'`);
  }
  return table("requests-table", "Time until the service began its answers, by route."
    + (data.requests_total > data.requests.length
      ? ` The ${count(data.requests.length)} most frequent of ${count(data.requests_total)}.` : ""), [
    { title: "Route", cell: (row) => breakable(row.name) },
    { title: "Count", kind: "n", cell: (row) => count(row.count) },
    { title: "5xx", kind: "n", cell: (row) => errors(row.error_count) },
    { title: "p50", kind: "n", cell: (row) => seconds(row.p50_seconds) },
    { title: "p90", kind: "n", cell: (row) => seconds(row.p90_seconds) },
    { title: "p95", kind: "n", cell: (row) => seconds(row.p95_seconds) },
    { title: "p99", kind: "n", cell: (row) => seconds(row.p99_seconds) },
    { title: "Max", kind: "n", cell: (row) => seconds(row.max_seconds) },
  ], data.requests, (row) => ({ "data-key": row.name }));
}

// User actions

const actions = {
  now: () => refresh(true),
  leave: forgetToken,
  skip: (_, event) => {
    // The URL holds the user's choices; a jump would overwrite them.
    event.preventDefault();
    $("main").focus();
  },
  sort: (button) => {
    const column = button.dataset.key.replace("sort-", "");
    const first = column === "name" ? column : "-" + column;
    view.sort = view.sort !== first ? first : first.startsWith("-") ? column : "-" + column;
    writeAddress();
    paint("operations");
  },
  pick: (chosen) => {
    view.operation = chosen.dataset.value;
    writeAddress();
    paint("operations", "detail");
  },
  copy: async (button) => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      announce("Copied.");
    } catch {
      // Without TLS, only pages from localhost may use the clipboard; otherwise the text is selected for copying.
      getSelection().selectAllChildren(code);
      button.textContent = "Marked";
      announce("The command is selected: copy it with the keyboard.");
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  },
};

function choose(input) {
  const name = input.dataset.do ?? input.name;
  if (name === "memory" || name === "split") view[name] = input.value;
  if (name === "range" || name === "refresh") view[name] = Number(input.value);
  if (name === "baseline" || name === "candidate") {
    const other = name === "baseline" ? "candidate" : "baseline";
    const before = data.comparison ?? view;
    // Comparing a variant with itself is pointless: the two are swapped.
    view[other] = before[other] === input.value ? before[name] : before[other];
    view[name] = input.value;
  }
  writeAddress();
  if (name === "memory") paint("memory");
  else if (name === "split") paint("operations", "detail");
  else if (name === "refresh") schedule();
  else refresh(true);
}

/** Shows the values of a chart at the pointer. The table below it has them for everybody else. */
function point(event) {
  const figure = event.target.closest?.("[data-chart]");
  document.querySelectorAll(".cursor").forEach((cursor) => cursor.remove());
  for (const readout of document.querySelectorAll(".readout")) {
    if (readout.parentElement !== figure && readout.textContent) readout.textContent = "";
  }
  const drawing = event.target.closest?.(".chart");
  if (!drawing || !figure) return;
  const shown = charts.get(figure.dataset.chart);
  const at = shown.place(event.clientX - drawing.getBoundingClientRect().left);
  const readout = figure.querySelector(".readout");
  if (at < 0 || at >= shown.starts.length) return readout.replaceChildren();
  const x = shown.middle(at);
  drawing.append(svg("line", { class: "cursor", x1: x, x2: x, y1: shown.top, y2: shown.bottom }));
  readout.textContent = shown.says(at);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-do]");
  if (target) actions[target.dataset.do]?.(target, event);
});
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken($("token").value);
});
document.addEventListener("change", (event) => {
  if (event.target.matches("select, [name=range]")) choose(event.target);
});
document.addEventListener("toggle", (event) => {
  const key = event.target.dataset.key;
  if (!key || event.target.open === unfolded.has(key)) return;
  if (event.target.open) unfolded.add(key);
  else unfolded.delete(key);
  if (event.target.open) paint(event.target.closest("[id]").id);
}, true);
document.addEventListener("pointermove", point);
document.addEventListener("pointerdown", point);
document.addEventListener("visibilitychange", () => {
  // No requests while the page is hidden. When it is visible again, its data is old.
  if (document.hidden) clearTimeout(timer);
  else if (view.refresh || failing) refresh();
});
addEventListener("online", () => failing && refresh());
addEventListener("hashchange", () => { readAddress(); refresh(true); });

let width = 0;
new ResizeObserver(() => {
  if (width === $("main").clientWidth) return;
  width = $("main").clientWidth;
  paint();
}).observe($("main"));
setInterval(countDown, 500);

readAddress();
refresh();
