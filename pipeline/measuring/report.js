"use strict";
// The page: groups of comparable runs. What is looked at is drawn; the difference of two runs is computed from their resamples.

const GROUPS = JSON.parse(document.getElementById("data").textContent).groups;
const COLORS = 8;
const decoded = new Map();

/** A run's metric on the resamples: Float32Array, or null where it has no interval. */
function draws(run, metric) {
  const text = run.drawn[metric];
  if (text === undefined) return null;
  if (!decoded.has(text)) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    decoded.set(text, new Float32Array(bytes.buffer));
  }
  return decoded.get(text);
}

/** As numpy.quantile does, of sorted values. */
function quantile(sorted, share) {
  const at = (sorted.length - 1) * share, low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
}

/** First less second, with the interval of the paired bootstrap and what follows from it. As comparison.py. */
function difference(group, first, second, metric) {
  const [a, b] = [first, second].map((run) => (run.values[metric] || [null])[0]);
  const out = {value: finite(a) && finite(b) ? a - b : null, low: null, high: null, verdict: "unsure"};
  const [x, y] = [draws(first, metric), draws(second, metric)];
  if (out.value === null || x === null || y === null || x.length !== y.length) return out;
  const sorted = Float64Array.from(x, (value, i) => value - y[i]).filter(Number.isFinite).sort();
  if (!sorted.length) return out;
  out.low = quantile(sorted, 0.025);
  out.high = quantile(sorted, 0.975);
  const more = out.low > 0, less = out.high < 0;
  if (more || less) out.verdict = more === (group.mode === "max") ? "better" : "worse";
  return out;
}

/** "Better" is known of the task's metric alone; of the others it is said which is more. */
function word(group, metric, found) {
  if (found.low === null) return "no interval";
  if (found.verdict === "unsure") return "cannot tell";
  return metric === group.metric ? found.verdict : found.low > 0 ? "higher" : "lower";
}

function chip(group, metric, found) {
  const told = word(group, metric, found);
  return el("span", {class: `chip ${metric === group.metric ? found.verdict : "same"}`}, told);
}

const interval = (low, high, told, places) => (finite(low) ? `${told(low, places)} to ${told(high, places)}` : "–");
const real = (group) => group.runs.filter((run) => !run.constant);

class Section {
  constructor(group, number) {
    this.group = group;
    this.id = `group-${number}`;
    this.shown = new Set(real(group).slice(0, 4));
    this.first = group.runs[0];
    this.second = group.runs.slice(1).find((run) => run.registered && run.registered.decision === "champion") || group.runs[1];
    this.sorting = {key: null, down: true};
    this.filter = "";
    this.node = el("section", {id: this.id});
    this.parts = Object.fromEntries(["head", "tools", "board", "pair", "legend", "curves", "errors", "pictures", "settings"].map((name) => [name, el("div", {class: name})]));
    this.node.append(...Object.values(this.parts));
    this.head();
    this.draw();
  }

  /** Digits behind the point of all that is said of a metric. */
  places(metric) { return digits(Math.max(0, ...this.group.runs.map((run) => Math.abs((run.values[metric] || [0])[0] || 0)))); }

  title() { return `${this.group.task} on ${this.group.dataset}`; }
  color(run) { const at = [...this.shown].indexOf(run); return at < 0 ? "transparent" : `var(--c${at % COLORS})`; }
  dash(run) { return ["", "6 3", "2 3"][Math.floor([...this.shown].indexOf(run) / COLORS) % 3] || null; }

  head() {
    const g = this.group, variant = g.variants[g.metric];
    this.parts.head.append(
      el("h2", {}, `${this.title()}: ${g.metric}`),
      el("p", {class: "soft"}, `${real(g).length} ${real(g).length === 1 ? "run" : "runs"} on split ${g.split}, ${g.num_samples} samples` +
        (g.num_items !== g.num_samples ? ` with ${g.num_items} items` : "") + `; ${g.mode === "max" ? "more" : "less"} is better. ${variant ? variant[0].toUpperCase() + variant.slice(1) + "." : ""}`));
    const search = el("input", {type: "search", placeholder: "part of a name", "aria-label": "show runs whose name has", oninput: (event) => { this.filter = event.target.value; this.board(); }});
    const reference = this.select(() => this.second, (run) => { this.second = run; }, "reference");
    this.parts.tools.className = "bar";
    this.parts.tools.append(el("label", {}, "difference to ", reference), real(g).length > 6 ? el("label", {}, "find ", search) : "",
      real(g).length > 1 ? el("span", {class: "soft"}, "a tick draws a run below") : "");
  }

  select(get, set, label) {
    const node = el("select", {"aria-label": label, "data-role": label, onchange: (event) => { set(this.group.runs[Number(event.target.value)]); this.draw(); }},
      this.group.runs.map((run, i) => el("option", {value: i}, run.name)));
    node.value = this.group.runs.indexOf(get());
    return node;
  }

  draw() {
    const reference = this.parts.tools.querySelector("select");
    if (reference) reference.value = this.group.runs.indexOf(this.second);
    this.board();
    this.pair();
    this.chosen();
  }

  chosen() {
    const runs = [...this.shown];
    this.parts.legend.replaceChildren(...runs.map((run) => el("span", {class: "name"}, el("i", {class: "swatch", style: `background: ${this.color(run)}`}), run.name)));
    this.drawCurves(runs);
    this.drawErrors(runs);
    this.drawPictures(runs);
    this.drawSettings(runs);
  }

  columns() {
    const g = this.group, cost = (name) => (run) => run.cost[name];
    return [
      {name: "run", key: (run) => run.name},
      {name: g.metric, key: (run) => (run.values[g.metric] || [null])[0], num: true},
      {name: "95 % interval"},
      {name: `difference to ${this.second.name}`},
      {name: "time", key: cost("time_s"), num: true, show: duration},
      {name: "processor time", key: cost("cpu_s"), num: true, show: duration},
      {name: "samples/s", key: cost("samples_per_s"), num: true, show: (v) => quantity(v, "")},
      {name: "goodput", key: cost("goodput"), num: true, show: (v) => `${Math.round(100 * v)} %`},
      {name: "memory", key: cost("memory_gib"), num: true, show: (v) => quantity(v, "GiB")},
      {name: "GPU time", key: cost("gpu_s"), num: true, show: duration},
      {name: "energy", key: cost("energy_j"), num: true, show: (v) => quantity(v / 3600, "Wh")},
      {name: "GPU memory", key: cost("gpu_gib"), num: true, show: (v) => quantity(v, "GiB")},
      {name: "epochs", key: cost("epochs"), num: true, show: (v) => quantity(v, "")},
      {name: "parameters", key: cost("num_parameters"), num: true, show: (v) => quantity(v, "")},
      {name: "checkpoint", key: cost("checkpoint_bytes"), num: true, show: (v) => quantity(v, "B")},
    ].filter((column) => !column.show || g.runs.some((run) => finite(column.key(run))));
  }

  board() {
    const columns = this.columns(), {key, down} = this.sorting;
    let runs = this.group.runs.filter((run) => run.constant || run.name.toLowerCase().includes(this.filter.toLowerCase()));
    const by = columns.find((column) => column.name === key);
    if (by) {
      const value = (run) => by.key(run) ?? null;
      const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", {numeric: true}) : a - b);
      runs = [...runs].sort((p, q) => {
        const [a, b] = [value(p), value(q)];
        return a === null || b === null ? (a === null) - (b === null) : down ? compare(b, a) : compare(a, b);
      });
    }
    const scale = this.scale();
    const head = columns.map((column) => el("th", {class: column.num ? "num" : null, "aria-sort": column.name === key ? (down ? "descending" : "ascending") : null},
      column.key ? el("button", {onclick: () => { this.sorting = {key: column.name, down: key === column.name ? !down : column.num === true}; this.board(); }},
        column.name + (column.name === key ? (down ? " ↓" : " ↑") : "")) : column.name));
    const rows = runs.map((run) => el("tr", {class: run.constant ? "constant" : null, "data-run": run.name}, columns.map((column) => this.cell(column, run, scale))));
    const top = this.parts.board.scrollTop;
    this.parts.board.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
    this.parts.board.scrollTop = top;
  }

  cell(column, run, scale) {
    const metric = this.group.metric, places = this.places(metric), [value, low, high] = run.values[metric] || [];
    if (column.name === "run") return el("td", {}, this.name(run));
    if (column.name === metric) return el("td", {class: "num value"}, shown(value, places));
    if (column.name === "95 % interval") return el("td", {}, this.range(value, low, high, scale), " ", el("small", {}, interval(low, high, shown, places)));
    if (column.name.startsWith("difference to")) {
      if (run === this.second) return el("td", {class: "soft"}, "reference");
      const found = difference(this.group, run, this.second, metric);
      return el("td", {class: "difference"}, chip(this.group, metric, found), ` ${signed(found.value, places)} `, el("small", {}, `(${interval(found.low, found.high, signed, places)})`));
    }
    return el("td", {class: "num"}, run.constant ? "" : column.show(column.key(run)));
  }

  name(run) {
    if (run.constant) return el("span", {class: "name"}, run.name);
    const change = (event) => { if (event.target.checked) this.shown.add(run); else this.shown.delete(run); this.board(); this.chosen(); };
    const decision = run.registered && run.registered.decision;
    return el("label", {class: "name"}, el("input", {type: "checkbox", checked: this.shown.has(run), onchange: change}),
      el("i", {class: "swatch", style: `background: ${this.color(run)}`}), run.name,
      decision && decision !== "not registered" ? el("span", {class: `chip ${decision === "champion" ? "champion" : "same"}`, title: run.registered.reason}, decision) : "");
  }

  scale() {
    const numbers = real(this.group).flatMap((run) => run.values[this.group.metric] || []).filter(finite);
    const low = Math.min(...numbers), high = Math.max(...numbers), margin = (high - low) * 0.04 || 1;
    return (value) => ((value - low + margin) / (high - low + 2 * margin)) * 150;
  }

  range(value, low, high, scale) {
    const svg = el("svg:svg", {width: 150, height: 14, viewBox: "0 0 150 14", "aria-hidden": "true", style: "vertical-align: middle; overflow: hidden"});
    svg.append(el("svg:line", {class: "axis", x1: 0, x2: 150, y1: 7, y2: 7}));
    if (finite(low)) svg.append(el("svg:line", {x1: scale(low), x2: scale(high), y1: 7, y2: 7, style: "stroke: var(--accent); stroke-width: 4; opacity: .45"}));
    if (finite(value)) svg.append(el("svg:circle", {cx: scale(value), cy: 7, r: 4, style: "fill: var(--accent)"}));
    return svg;
  }

  pair() {
    const g = this.group, [a, b] = [this.first, this.second], found = difference(g, a, b, g.metric);
    const by = signed(found.value, this.places(g.metric)), range = interval(found.low, found.high, signed, this.places(g.metric));
    const size = `${by} in ${g.metric} (95 % interval ${range})`;
    const the = (run) => (run.constant ? "the " : "") + run.name, big = (text) => text[0].toUpperCase() + text.slice(1);
    const said = a === b ? "Choose two runs."
      : found.low === null ? `There is no interval of this difference: ${by} in ${g.metric}.`
      : found.verdict === "unsure" ? `Cannot tell ${the(a)} from ${the(b)}: ${size}.` : `${a.constant ? big(the(a)) : a.name} is ${found.verdict} than ${the(b)}: ${size}.`;
    const rows = g.metrics.filter((metric) => a.values[metric] || b.values[metric]).map((metric) => {
      const one = difference(g, a, b, metric), places = this.places(metric);
      return el("tr", {"data-metric": metric}, el("td", {title: g.variants[metric]}, metric), el("td", {class: "num"}, shown((a.values[metric] || [])[0], places)),
        el("td", {class: "num"}, shown((b.values[metric] || [])[0], places)), el("td", {class: "num"}, signed(one.value, places)), el("td", {}, interval(one.low, one.high, signed, places)), el("td", {}, a === b ? "" : chip(g, metric, one)));
    });
    const table = el("div", {class: "wide"}, el("table", {}, el("thead", {}, el("tr", {}, ["metric", a.name, b.name, "difference", "its 95 % interval", ""].map((text, i) => el("th", {class: i && i < 4 ? "num" : null}, text)))), el("tbody", {}, rows)));
    this.parts.pair.replaceChildren(el("h3", {}, "Two runs"),
      el("div", {class: "bar"}, this.select(() => this.first, (run) => { this.first = run; }, "first run"), " against ", this.select(() => this.second, (run) => { this.second = run; }, "second run"),
        el("button", {onclick: () => { [this.first, this.second] = [b, a]; this.draw(); }}, "swap")),
      el("p", {class: `verdict ${found.verdict}`}, said),
      el("details", {open: rows.length <= 12}, el("summary", {}, `${rows.length} ${rows.length === 1 ? "metric" : "metrics"}${g.all_drawn ? "" : "; with so many runs, intervals of the first alone"}`), table));
  }

  drawCurves(runs) {
    const names = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))];
    const usual = [`val/${this.group.metric}`, "val/loss", "train/loss"].filter((name) => names.includes(name));
    const others = names.filter((name) => !usual.includes(name));
    const chart = (name) => lineChart(name, "optimizer step", runs.filter((run) => run.curves[name]).map((run) => ({name: run.name, color: this.color(run), dash: this.dash(run), points: run.curves[name]})));
    const more = others.length ? el("details", {}, el("summary", {}, `${others.length} more curves`)) : "";
    if (more) more.addEventListener("toggle", () => { if (more.open && !more.querySelector(".grid")) more.append(el("div", {class: "grid"}, others.map(chart))); });
    const none = runs.filter((run) => !Object.keys(run.curves).length).map((run) => run.name);
    this.parts.curves.replaceChildren(el("h3", {}, "Learning curves"), usual.length ? el("div", {class: "grid"}, usual.map(chart)) : "", more,
      none.length ? el("p", {class: "soft"}, `No curves were kept of ${none.join(", ")}: \`dvc repro --force train@RUN\` trains again and keeps them.`) : "");
  }

  drawErrors(runs) {
    const names = [...new Map(runs.flatMap((run) => run.tables.map((table) => [table.name, table]))).values()];
    names.sort((a, b) => b.name.includes("errors") - a.name.includes("errors") || (b.kind === "bar") - (a.kind === "bar"));
    const charts = (kind) => names.filter((table) => (table.kind === "bar") === kind).map((table) => this.charts(table, runs.map((run) => [run, run.tables.find((one) => one.name === table.name)]).filter(([, one]) => one && one.rows.length)));
    const grids = (runs.length === 1 ? [[...charts(true), ...charts(false)].flat()] : [charts(true).flat(), ...charts(false)]).filter((cards) => cards.length).map((cards) => el("div", {class: "grid"}, cards));
    this.parts.errors.replaceChildren(grids.length ? el("h3", {}, "Errors by kind, and where each run is strong") : "", ...grids);
  }

  charts(table, found) {
    const at = (one, column) => one.columns.indexOf(column), title = table.title || table.name.replaceAll("_", " ");
    if (table.kind === "bar") {
      const rows = new Map();
      for (const [run, one] of found)
        for (const row of one.rows) {
          const name = row[at(one, one.x)];
          if (!rows.has(name)) rows.set(name, []);
          rows.get(name).push({run: run.name, color: this.color(run), value: row[at(one, one.y)]});
        }
      return [barChart(title, table.y.replaceAll("_", " "), [...rows].slice(0, 40).map(([name, values]) => ({name, values})))];
    }
    if (table.kind === "confusion")
      return found.map(([run, one]) => confusion(`${title}: ${run.name}`, one.rows.map((row) => ["truth", "predicted", "count"].map((name) => row[at(one, name)]))));
    if (table.kind === "heat")
      return found.map(([run, one]) => heat(`${title}: ${run.name}`, table, one.rows.map((row) => [one.y, one.x, "weight", "marked"].map((name) => row[at(one, name)]))));
    return found.map(([run, one]) => {
      const lines = new Map();
      for (const row of one.rows) {
        const name = one.series ? row[at(one, one.series)] : run.name;
        if (!lines.has(name)) lines.set(name, {name, color: `var(--c${lines.size % COLORS})`, dash: ["", "6 3", "2 3"][Math.floor(lines.size / COLORS) % 3] || null, points: []});
        lines.get(name).points.push([row[at(one, one.x)], row[at(one, one.y)]]);
      }
      const card = lineChart(`${title}: ${run.name}`, `${one.x.replaceAll("_", " ")} → ${one.y.replaceAll("_", " ")}`, [...lines.values()]);
      card.append(el("p", {class: "soft"}, [...lines.values()].slice(0, 12).map((line) => el("span", {class: "name", style: "margin-right: .7rem"}, el("i", {class: "swatch", style: `background: ${line.color}`}), line.name))));
      return card;
    });
  }

  drawPictures(runs) {
    const keys = [...new Set(runs.flatMap((run) => Object.keys(run.pictures)))];
    const figure = (run, key) => el("figure", {}, run.pictures[key]
      ? el("img", {src: run.pictures[key], alt: `${key} by ${run.name}`, onclick: () => enlarge(`${run.name}: ${key}`, run.pictures[key])}) : el("p", {class: "soft"}, "no picture"),
      el("figcaption", {}, el("span", {class: "name"}, el("i", {class: "swatch", style: `background: ${this.color(run)}`}), run.name), ` ${key}`));
    const columns = Math.max(1, runs.length);
    const style = runs.length === 1 ? "grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr))" : `grid-template-columns: repeat(${columns}, minmax(14rem, 1fr))`;
    this.parts.pictures.replaceChildren(keys.length ? el("h3", {}, "The same pictures") : "", el("div", {class: "pictures", style}, keys.flatMap((key) => runs.map((run) => figure(run, key)))));
  }

  drawSettings(runs) {
    const names = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))], text = (value) => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));
    const differ = names.filter((name) => new Set(runs.map((run) => text(run.settings[name]))).size > 1);
    const table = (chosen) => el("div", {class: "wide"}, el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "setting"), runs.map((run) => el("th", {}, run.name)))),
      el("tbody", {}, chosen.map((name) => el("tr", {}, el("td", {}, name), runs.map((run) => el("td", {}, text(run.settings[name]))))))));
    this.parts.settings.replaceChildren(names.length ? el("h3", {}, "Settings") : "",
      runs.length > 1 ? (differ.length ? table(differ) : el("p", {class: "soft"}, "These runs have the same settings.")) : "",
      names.length ? el("details", {}, el("summary", {}, `all ${names.length} settings`), table(names)) : "");
  }
}

function enlarge(title, picture) {
  const dialog = document.getElementById("large");
  dialog.querySelector("p").textContent = title;
  dialog.querySelector("img").src = picture;
  dialog.showModal();
}

const sections = GROUPS.map((group, i) => new Section(group, i));
document.getElementById("report").append(...sections.map((section) => section.node));
if (!sections.length) document.getElementById("report").append(el("p", {}, "No runs: params.yaml declares none."));
if (sections.length > 1)
  document.getElementById("groups").append(...sections.map((section) => el("a", {href: `#${section.id}`}, section.title())));
