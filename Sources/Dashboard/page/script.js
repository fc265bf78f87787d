// Fills the page from one request to /v1/metrics/summary, again and again.
"use strict";

// Where things are and what was chosen -----------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const origin = location.origin;
const view = { range: 3600, refresh: 15, baseline: "", candidate: "", operation: "", sort: "count", descending: true };
let data = null;          // the last summary that came
let failedSince = null;   // when the first of the failures came
let timer = 0;
let running = null;

function readAddress() {
  const sent = new URLSearchParams(location.hash.slice(1));
  for (const name of ["range", "refresh"]) {
    const value = Number(sent.get(name));
    if (sent.has(name) && [...$(name).options].some((o) => Number(o.value) === value)) view[name] = value;
  }
  for (const name of ["baseline", "candidate", "operation"]) if (sent.has(name)) view[name] = sent.get(name);
  $("range").value = view.range;
  $("refresh").value = view.refresh;
}

function writeAddress() {
  const kept = new URLSearchParams({ range: view.range, refresh: view.refresh });
  for (const name of ["baseline", "candidate", "operation"]) if (view[name]) kept.set(name, view[name]);
  history.replaceState(null, "", "#" + kept);
}

// Asking -------------------------------------------------------------------------------------------------------------

async function refresh() {
  clearTimeout(timer);
  if (running) running.abort();
  const asking = running = new AbortController();
  const limit = setTimeout(() => asking.abort(), 15000);
  const until = new Date();
  const query = new URLSearchParams({ since: new Date(until - view.range * 1000).toISOString() });
  if (view.baseline && view.candidate) {
    query.set("baseline", view.baseline);
    query.set("candidate", view.candidate);
  }
  try {
    const answer = await fetch("/v1/metrics/summary?" + query, { signal: asking.signal, cache: "no-store" });
    const body = await answer.json().catch(() => null);
    if (!answer.ok || !body) throw new Error((body && body.detail) || `The service answered ${answer.status}.`);
    if (asking !== running) return;
    data = body;
    failedSince = null;
    paint();
    status(`Updated ${clock(new Date())}`);
  } catch (error) {
    if (asking !== running) return;
    failedSince = failedSince || new Date();
    outage(error);
  } finally {
    clearTimeout(limit);
    if (asking === running) {
      running = null;
      schedule();
    }
  }
}

/** Tries again soon while the service is away, whatever was chosen: it comes back by itself. */
function schedule() {
  clearTimeout(timer);
  const seconds = failedSince ? 5 : view.refresh;
  if (seconds > 0 && !document.hidden) timer = setTimeout(refresh, seconds * 1000);
}

function outage(error) {
  const unreachable = error instanceof TypeError || error.name === "AbortError";
  const reason = unreachable ? "The service does not answer." : error.message;
  const kept = data ? ` Shown is what it said at ${clock(new Date(data.generated_at))}.` : "";
  $("outage").textContent = `${reason} Since ${clock(failedSince)}; trying again every 5 seconds.${kept}`;
  $("outage").hidden = false;
  document.body.classList.add("stale");
  status("Not connected");
}

function status(text) { $("status").textContent = text; }

// Building elements: text never becomes markup -----------------------------------------------------------------------

function el(name, attributes, ...children) {
  const made = document.createElement(name);
  return fill(made, attributes, children);
}

function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined).map((child) =>
    child instanceof Node ? child : String(child)));
  return made;
}

/** Keeps the keyboard's place while a part of the page is made anew. */
function replace(id, ...children) {
  const place = $(id);
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  place.replaceChildren(...children.flat(Infinity));
  if (focused) [...place.querySelectorAll("[data-key]")].find((e) => e.dataset.key === focused)?.focus();
}

// Numbers for people ---------------------------------------------------------------------------------------------------

const known = (value) => value !== null && value !== undefined;
const plain = (value, digits = 0) => value.toLocaleString(undefined, { maximumFractionDigits: digits });
const count = (value) => known(value) ? plain(value) : "–";
const percent = (ratio, digits = 1) => known(ratio) ? plain(ratio * 100, digits) + " %" : "–";

function seconds(value) {
  if (!known(value)) return "–";
  const [scaled, unit] = value === 0 || value >= 120 ? [value, "s"] : value >= 1 ? [value, "s"]
    : value >= 0.001 ? [value * 1e3, "ms"] : [value * 1e6, "µs"];
  return plain(scaled, Math.abs(scaled) >= 100 ? 0 : Math.abs(scaled) >= 10 ? 1 : 2) + " " + unit;
}

function bytes(value) {
  if (!known(value)) return "–";
  let unit = 0;
  let scaled = value;
  while (scaled >= 1000 && unit < 4) { scaled /= 1000; unit += 1; }
  return plain(scaled, unit === 0 || scaled >= 100 ? 0 : 1) + " " + ["B", "kB", "MB", "GB", "TB"][unit];
}

function clock(date) { return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" }); }

function when(iso) {
  const date = new Date(iso);
  const today = new Date().toDateString() === date.toDateString();
  return el("time", { datetime: iso, title: iso }, today ? clock(date) : date.toLocaleString());
}

// Parts that several sections use ------------------------------------------------------------------------------------

/** columns: {title, key?, n?: numeric, cell(row)}; the first is the row's header. */
function table(caption, columns, rows, sorting) {
  const head = columns.map((column) => {
    const sorted = sorting && column.key && view.sort === column.key;
    return el("th", {
      scope: "col", class: column.n ? "n" : null,
      "aria-sort": sorted ? (view.descending ? "descending" : "ascending") : null,
    }, sorting && column.key
      ? el("button", { type: "button", "data-key": "sort-" + column.key, onclick: () => sorting(column.key) }, column.title)
      : column.title);
  });
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, el("table", {},
    el("caption", {}, caption), el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, rows.map((row) => el("tr", {}, columns.map((column, place) =>
      el(place === 0 ? "th" : "td", { scope: place === 0 ? "row" : null, class: column.n ? "n" : null }, column.cell(row))))))));
}

/** An empty state: what is missing, and the request that fills it. */
function empty(text, command) {
  if (!command) return el("p", { class: "empty" }, text);
  const copy = el("button", {
    type: "button", class: "copy",
    onclick: async () => {
      try { await navigator.clipboard.writeText(command); copy.textContent = "Copied"; } catch { copy.textContent = "Select and copy"; }
      setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    },
  }, "Copy");
  return [el("p", { class: "empty" }, text), el("pre", {}, copy, el("code", {}, command))];
}

const curl = (method, path, body) =>
  `curl -X ${method} ${origin}${path} -H 'Content-Type: application/json' -d '${JSON.stringify(body)}'`;

function bar(ratio) {
  const inner = el("i", {});
  inner.style.width = `${Math.round((ratio || 0) * 100)}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, inner);
}

// Charts: each says in words what it shows, and a table beside it has the figures --------------------------------------

/** Runs of neighbours that have values, for lines that break where there is nothing. */
function runs(values) {
  const found = [];
  values.forEach((value, place) => {
    if (!known(value)) return;
    if (place > 0 && known(values[place - 1])) found[found.length - 1].push(place);
    else found.push([place]);
  });
  return found;
}

function line(values, x, y, kind = "") {
  return runs(values).map((run) => run.length === 1
    ? svg("circle", { class: "dot " + kind, cx: x(run[0]), cy: y(values[run[0]]), r: 2.2 })
    : svg("path", { class: "stroke " + kind, d: "M" + run.map((p) => `${x(p).toFixed(1)} ${y(values[p]).toFixed(1)}`).join("L") }));
}

function area(low, high, x, y, kind) {
  return runs(high).map((run) => {
    const up = run.map((p) => `${x(p).toFixed(1)} ${y(high[p]).toFixed(1)}`);
    const down = [...run].reverse().map((p) => `${x(p).toFixed(1)} ${y(low[p]).toFixed(1)}`);
    return svg("path", { class: kind, d: "M" + up.concat(down).join("L") + "Z" });
  });
}

function spark(values, label) {
  const most = Math.max(...values.filter(known), 1e-12);
  const x = (place) => 2 + place / Math.max(values.length - 1, 1) * 106;
  return svg("svg", { class: "spark", viewBox: "0 0 110 26", role: "img", "aria-label": label },
    line(values, x, (value) => 23 - value / most * 20));
}

/** lines: {values, kind}; areas: {low, high, kind}. The scale begins at zero: heights may be compared. */
function chart(label, lines, areas, format, most, width = innerWidth > 520 ? 600 : 340) {
  const [height, left, bottom] = [170, 62, 22];
  const top = most || Math.max(...lines.concat(areas.map((a) => ({ values: a.high }))).flatMap((l) => l.values).filter(known), 1e-12);
  const steps = data.buckets.length;
  const x = (place) => left + place / Math.max(steps - 1, 1) * (width - left - 6);
  const y = (value) => 8 + (1 - value / top) * (height - bottom - 8);
  const marks = [0, 0.5, 1].map((part) => [
    svg("line", { class: "grid", x1: left, x2: width, y1: y(top * part), y2: y(top * part) }),
    svg("text", { x: left - 8, y: y(top * part) + 4, "text-anchor": "end" }, format(top * part))]);
  const day = view.range > 86400;
  const times = steps ? [0, Math.floor((steps - 1) / 2), steps - 1].map((place, at) => svg("text", {
    x: x(place), y: height - 4, "text-anchor": ["start", "middle", "end"][at],
  }, new Date(data.buckets[place]).toLocaleString([], day ? { month: "short", day: "numeric", hour: "2-digit" }
    : { hour: "2-digit", minute: "2-digit" }))) : [];
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, marks, times,
    areas.map((a) => area(a.low, a.high, x, y, a.kind)), lines.map((l) => line(l.values, x, y, l.kind)));
}

function key(...entries) {
  return el("ul", { class: "key" }, entries.map(([kind, text]) => el("li", {}, el("i", { class: kind }), text)));
}

// The sections ---------------------------------------------------------------------------------------------------------

function paint() {
  $("outage").hidden = true;
  document.body.classList.remove("stale");
  $("main").setAttribute("aria-busy", "false");
  $("version").textContent = `${data.service.version} · up ${uptime(data.service.uptime_seconds)}`
    + (data.monitoring === "disabled" ? " · monitoring is off" : "");
  const parts = { tiles, operations, detail, comparison, cache, memory, sessions, history: historyPart, runs: runsPart, requests };
  for (const [id, part] of Object.entries(parts)) replace(id, part());
}

function uptime(value) {
  const [d, h, m] = [Math.floor(value / 86400), Math.floor(value / 3600) % 24, Math.floor(value / 60) % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min` : `${Math.floor(value)} s`;
}

function tiles() {
  const all = data.timings.reduce((sum, t) => sum + t.count, 0);
  const errors = data.timings.reduce((sum, t) => sum + t.error_count, 0);
  const hits = data.cache.items.reduce((sum, n) => sum + n.hits, 0);
  const lookups = data.cache.items.reduce((sum, n) => sum + n.hits + n.misses, 0);
  const own = data.memory.find((m) => m.name === "reprise");
  return [
    [count(all), "operations timed"], [all ? percent(errors / all, 2) : "–", "of them failed"],
    [lookups ? percent(hits / lookups) : "–", "cache hit rate"], [count(data.sessions.session_count), "sessions"],
    [count(data.history.item_count), "history items"], [bytes(own && own.rss_bytes.latest), "memory of this service"],
  ].map(([value, name]) => el("div", { class: "tile" }, el("b", {}, value), el("span", {}, name)));
}

const operationColumns = [
  { title: "Operation", key: "name" }, { title: "Count", key: "count", n: true }, { title: "Errors", key: "error_count", n: true },
  { title: "Mean", key: "mean_seconds", n: true }, { title: "p50", key: "p50_seconds", n: true },
  { title: "p90", key: "p90_seconds", n: true }, { title: "p95", key: "p95_seconds", n: true },
  { title: "p99", key: "p99_seconds", n: true }, { title: "Max", key: "max_seconds", n: true },
  { title: "Hit rate", key: "cache_hit_ratio", n: true },
];

function operations() {
  if (data.timings.length === 0) {
    const body = { kind: "timing", name: "model_load", duration_seconds: 1.52, cache: "miss", variant: "original" };
    return empty(data.monitoring === "disabled"
      ? "Monitoring is off: set enable_monitoring to true to have samples kept."
      : "No operation was timed in this range. Send a timing:", data.monitoring === "disabled"
      ? curl("PATCH", "/v1/config", { enable_monitoring: true }) : curl("POST", "/v1/samples", body));
  }
  if (!data.timings.some((t) => t.name === view.operation)) view.operation = data.timings[0].name;
  const order = (a, b) => typeof a === "string" ? a.localeCompare(b) : (a ?? -1) - (b ?? -1);
  const rows = [...data.timings].sort((a, b) => order(a[view.sort], b[view.sort]) * (view.descending ? -1 : 1));
  const columns = operationColumns.map((column) => ({
    ...column,
    cell: (row) => column.key === "name"
      ? el("button", {
        type: "button", class: "pick", "data-key": "op-" + row.name, "aria-pressed": String(row.name === view.operation),
        onclick: () => { view.operation = row.name; writeAddress(); replace("operations", operations()); replace("detail", detail()); },
      }, row.name)
      : column.key === "cache_hit_ratio" ? percent(row.cache_hit_ratio)
        : column.key.endsWith("_seconds") ? seconds(row[column.key]) : count(row[column.key]),
  }));
  columns.push({ title: "p50 over time", cell: (row) => spark(row.series.p50_seconds, `Median of ${row.name} over time`) });
  const more = data.timings_total > data.timings.length ? ` The ${data.timings.length} most frequent of ${count(data.timings_total)}.` : "";
  const exact = data.resolution === "raw" ? "exact" : `within 1 %, from roll-ups by ${data.resolution}`;
  return table(`Durations by operation; percentiles are ${exact}.${more}`, columns, rows, (chosen) => {
    view.descending = view.sort === chosen ? !view.descending : chosen !== "name";
    view.sort = chosen;
    replace("operations", operations());
  });
}

function detail() {
  const chosen = data.timings.find((t) => t.name === view.operation);
  if (!chosen) return [];
  const { p50_seconds: p50, p90_seconds: p90, p99_seconds: p99 } = chosen.series;
  const label = `${chosen.name} over time: median ${seconds(chosen.p50_seconds)}, 90th percentile `
    + `${seconds(chosen.p90_seconds)}, 99th ${seconds(chosen.p99_seconds)}`;
  return [el("h3", {}, `${chosen.name} over time`),
    chart(label, [{ values: p50, kind: "" }], [{ low: p50, high: p90, kind: "inner" }, { low: p90, high: p99, kind: "outer" }], seconds, 0, innerWidth > 900 ? 1200 : undefined),
    key(["", "median"], ["faint", "up to the 90th percentile"], ["fainter", "up to the 99th"])];
}

const verdicts = { faster: "faster", slower: "slower", no_difference: "no difference to be seen", too_few_samples: "too few samples" };

function comparison() {
  if (data.variants.length < 2) {
    return empty("Time one operation in two ways, and send each with its variant to have them compared:", curl("POST", "/v1/samples", {
      samples: ["original", "optimized"].map((variant) => ({ kind: "timing", name: "quality_scoring", duration_seconds: variant === "original" ? 2.1 : 0.08, variant })),
    }));
  }
  const now = data.comparison || { baseline: "", candidate: "", items: [] };
  const pick = (name, title) => el("label", {}, title, el("select", {
    "data-key": name,
    onchange: (event) => {
      view.baseline = name === "baseline" ? event.target.value : view.baseline || now.baseline || data.variants[0];
      view.candidate = name === "candidate" ? event.target.value : view.candidate || now.candidate || data.variants[1];
      writeAddress();
      refresh();
    },
  }, data.variants.map((variant) => el("option", { value: variant, selected: variant === (view[name] || now[name]) ? "" : null }, variant))));
  const interval = (change, range) => known(change) ? el("span", { title: "95 % confidence interval, percentile bootstrap" },
    `${change > 0 ? "+" : ""}${plain(change, 1)} %`, known(range) ? ` (${plain(range[0], 1)} to ${plain(range[1], 1)})` : "") : "–";
  const said = (row) => {
    const change = row.change_percent.p50;
    const text = row.verdict === "faster" || row.verdict === "slower"
      ? `${plain(Math.abs(change), 1)} % ${row.verdict}` : verdicts[row.verdict];
    return el("span", { class: { faster: "good", slower: "bad" }[row.verdict] || "soft" }, text);
  };
  return [el("form", { class: "picks", onsubmit: (event) => event.preventDefault() }, pick("baseline", "Original"), pick("candidate", "Optimized")),
    now.items.length === 0 ? empty("No operation was timed with both variants in this range.") : table(
      `${now.candidate} against ${now.baseline}: change of the median with its 95 % confidence interval; negative is faster.`, [
        { title: "Operation", cell: (row) => row.name },
        { title: `Original (${now.baseline}), p50`, n: true, cell: (row) => seconds(row.baseline.p50_seconds) },
        { title: `Optimized (${now.candidate}), p50`, n: true, cell: (row) => seconds(row.candidate.p50_seconds) },
        { title: "Improvement", cell: said },
        { title: "Change of p50", n: true, cell: (row) => interval(row.change_percent.p50, row.confidence_interval_percent.p50) },
        { title: "Change of p95", n: true, cell: (row) => interval(row.change_percent.p95, row.confidence_interval_percent.p95) },
        { title: "Samples", n: true, cell: (row) => `${count(row.baseline.count)} / ${count(row.candidate.count)}` },
      ], now.items)];
}

function cache() {
  if (data.cache.items.length === 0) {
    return empty("Nothing is cached yet. Store a value:", `curl -X PUT ${origin}/v1/cache/scores/entries/song-1 -H 'Reprise-TTL: 1800' -d '0.93'`);
  }
  const reasons = (row) => Object.entries(row.misses_by_reason).filter(([, n]) => n > 0).map(([name, n]) => `${count(n)} ${name}`).join(", ");
  return [chart("Cache hit rate over time", [{ values: data.cache.series.hit_ratio, kind: "" }], [], (v) => percent(v, 0), 1),
    table("Hit rate of each namespace since it was made, and why look-ups missed", [
      { title: "Namespace", cell: (row) => row.namespace },
      { title: "Hit rate", n: true, cell: (row) => [bar(row.hit_ratio), " ", percent(row.hit_ratio)] },
      { title: "Hits", n: true, cell: (row) => count(row.hits) },
      { title: "Misses", n: true, cell: (row) => el("span", { title: reasons(row) }, count(row.misses)) },
      { title: "Reasons", cell: (row) => el("span", { class: "why" }, reasons(row) || "–") },
      { title: "Entries", n: true, cell: (row) => count(row.entry_count) }, { title: "Size", n: true, cell: (row) => bytes(row.size_bytes) },
    ], data.cache.items)];
}

function memory() {
  if (data.memory.length === 0) {
    return empty("No process said what memory it has. Send a sample:", curl("POST", "/v1/samples",
      { kind: "memory", name: "melodai", rss_bytes: 157286400, vms_bytes: 1073741824, percent: 1.9 }));
  }
  const shown = data.memory.slice(0, 3);
  const kinds = ["", "two", "three"];
  return [chart("Resident memory over time: " + shown.map((m) => `${m.name} ${bytes(m.rss_bytes.latest)}`).join(", "),
    shown.map((m, place) => ({ values: m.series.rss_bytes, kind: kinds[place] })), [], bytes),
  key(...shown.map((m, place) => [kinds[place], m.name])),
  table("Memory of each process: resident (RSS), virtual (VMS), share of the machine's", [
    { title: "Process", cell: (row) => row.name }, { title: "RSS now", n: true, cell: (row) => bytes(row.rss_bytes.latest) },
    { title: "RSS mean", n: true, cell: (row) => bytes(row.rss_bytes.mean) }, { title: "RSS most", n: true, cell: (row) => bytes(row.rss_bytes.max) },
    { title: "VMS now", n: true, cell: (row) => bytes(row.vms_bytes.latest) },
    { title: "Share", n: true, cell: (row) => known(row.percent.latest) ? plain(row.percent.latest, 1) + " %" : "–" },
  ], data.memory)];
}

function sessions() {
  const s = data.sessions;
  if (s.session_count === 0) {
    return empty("There are no sessions. Open one:", curl("PUT", "/v1/sessions/tab-7", { defaults: { auto_generate: false } }));
  }
  return [el("p", { class: "soft" }, `Together ${count(s.state_key_count)} keys, ${bytes(s.state_size_bytes)}; sessions: ${count(s.session_count)}.`),
    chart("Bytes of all session states over time", [{ values: s.series.state_size_bytes, kind: "" }], [], bytes),
    table("The largest sessions", [
      { title: "Session", cell: (row) => row.id }, { title: "Keys", n: true, cell: (row) => count(row.state_key_count) },
      { title: "State", n: true, cell: (row) => bytes(row.state_size_bytes) },
      { title: "History", n: true, cell: (row) => count(row.history_count) }, { title: "Last active", n: true, cell: (row) => when(row.last_active_at) },
    ], s.largest)];
}

function historyPart() {
  if (data.history.item_count === 0) {
    return empty("No session has a history yet. Append an item:", curl("POST", "/v1/sessions/tab-7/history",
      { kind: "generation", data: { prompt: "a calm piano piece" } }));
  }
  return table(`Items: ${count(data.history.item_count)}, ${bytes(data.history.size_bytes)}`, [
    { title: "Kind", cell: (row) => row.kind ?? "(none)" }, { title: "Items", n: true, cell: (row) => count(row.item_count) },
    { title: "Share", n: true, cell: (row) => bar(row.item_count / data.history.item_count) },
  ], data.history.by_kind);
}

function runsPart() {
  if (data.maintenance.runs.length === 0) return empty("No background task ran yet.");
  return table("What the background tasks did last", [
    { title: "Task", cell: (row) => row.task }, { title: "When", cell: (row) => when(row.started_at) },
    { title: "Why", cell: (row) => row.trigger }, { title: "Took", n: true, cell: (row) => seconds(row.duration_seconds) },
    { title: "Rows", n: true, cell: (row) => count(row.removed) },
    { title: "Outcome", cell: (row) => row.error ? el("span", { class: "bad" }, row.error) : "ok" },
  ], data.maintenance.runs);
}

function requests() {
  if (data.requests.length === 0) return empty("No requests were timed in this range yet; they appear within 10 seconds.");
  return table("The service's own answers by route, up to the answer's head", [
    { title: "Route", cell: (row) => row.name }, { title: "Count", n: true, cell: (row) => count(row.count) },
    { title: "5xx", n: true, cell: (row) => count(row.error_count) }, { title: "p50", n: true, cell: (row) => seconds(row.p50_seconds) },
    { title: "p99", n: true, cell: (row) => seconds(row.p99_seconds) },
  ], data.requests);
}

// Beginning ------------------------------------------------------------------------------------------------------------

readAddress();
for (const name of ["range", "refresh"]) {
  $(name).addEventListener("change", () => {
    view[name] = Number($(name).value);
    writeAddress();
    refresh();
  });
}
$("controls").addEventListener("submit", (event) => { event.preventDefault(); refresh(); });
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : refresh());
window.addEventListener("hashchange", () => { readAddress(); refresh(); });
refresh();
