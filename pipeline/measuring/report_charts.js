"use strict";
// Elements, numbers and charts. Every text becomes a text node: names and labels are no HTML.

function el(tag, attributes, ...children) {
  const node = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const finite = (value) => typeof value === "number" && Number.isFinite(value);

/** How many digits behind the point a reader compares, of numbers up to this size: a percentage has two. */
const digits = (size) => (size >= 1000 ? 0 : size >= 10 ? 2 : size >= 0.05 || !size ? 4 : 5);

/** A number; `places`: its digits behind the point, by its own size where they are not given. */
function shown(value, places) {
  if (!finite(value)) return "–";
  return (value < 0 ? "−" : "") + Math.abs(value).toFixed(places ?? digits(Math.abs(value)));
}

const signed = (value, places) => (finite(value) && value >= 0 ? "+" : "") + shown(value, places);

function duration(seconds) {
  if (!finite(seconds)) return "–";
  if (seconds < 90) return `${seconds.toFixed(0)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(1)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function quantity(value, unit) {
  if (!finite(value)) return "–";
  for (const [size, prefix] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]])
    if (value >= size) return (value / size).toPrecision(3) + prefix + unit;
  return `${Number(value.toPrecision(3))}${unit ? " " + unit : ""}`;
}

/** Round numbers that span low..high. */
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
  const out = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step)
    out.push(Number(tick.toPrecision(10)));
  return out;
}

const W = 380, H = 220, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 32;

/** lines: [{name, color, dash, points: [[x, y], ...]}]. */
function lineChart(title, xLabel, lines) {
  const card = el("div", {class: "card chart"}, el("h4", {}, title));
  const points = lines.flatMap((line) => line.points);
  if (!points.length) return el("div", {class: "card"}, el("h4", {}, title), el("p", {class: "soft"}, "no data"));
  const span = (at) => {
    let low = Infinity, high = -Infinity;
    for (const point of points) if (finite(point[at])) { low = Math.min(low, point[at]); high = Math.max(high, point[at]); }
    const margin = high > low ? (at ? (high - low) * 0.05 : 0) : Math.abs(high) * 0.1 || 1;
    return [low - margin, high + margin];
  };
  const [x0, x1] = span(0), [y0, y1] = span(1);
  const x = (value) => LEFT + ((value - x0) / (x1 - x0)) * (W - LEFT - RIGHT);
  const y = (value) => H - BOTTOM - ((value - y0) / (y1 - y0)) * (H - TOP - BOTTOM);
  const svg = el("svg:svg", {viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title});
  for (const tick of ticks(y0, y1, 4)) {
    svg.append(el("svg:line", {class: "axis", x1: LEFT, x2: W - RIGHT, y1: y(tick), y2: y(tick)}));
    svg.append(el("svg:text", {x: LEFT - 5, y: y(tick) + 4, "text-anchor": "end"}, String(tick)));
  }
  for (const tick of ticks(x0, x1, 5))
    svg.append(el("svg:text", {x: x(tick), y: H - BOTTOM + 14, "text-anchor": "middle"}, String(tick)));
  svg.append(el("svg:text", {x: (W + LEFT) / 2, y: H - 3, "text-anchor": "middle"}, xLabel));
  for (const line of lines) {
    const path = line.points.filter((p) => finite(p[1]));
    const places = path.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ");
    const style = `stroke: ${line.color}; fill: none; stroke-width: 1.8`;
    svg.append(el("svg:polyline", {points: places, style, "stroke-dasharray": line.dash}));
    if (path.length <= 15)
      for (const p of path) svg.append(el("svg:circle", {cx: x(p[0]), cy: y(p[1]), r: 2.4, style: `fill: ${line.color}`}));
  }
  card.append(svg);
  hover(card, svg, lines, x, xLabel);
  return card;
}

/** Values at the place of the pointer. */
function hover(card, svg, lines, x, xLabel) {
  const tip = el("div", {class: "tip", hidden: true}), mark = el("svg:line", {class: "axis", y1: TOP, y2: H - BOTTOM});
  mark.style.display = "none";
  svg.append(mark);
  card.append(tip);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * W;
    const near = lines.filter((line) => line.points.length).map((line) => {
      const point = line.points.reduce((a, b) => (Math.abs(x(b[0]) - at) < Math.abs(x(a[0]) - at) ? b : a));
      return {line, point};
    });
    if (!near.length) return;
    const place = near.reduce((a, b) => (Math.abs(x(b.point[0]) - at) < Math.abs(x(a.point[0]) - at) ? b : a)).point[0];
    mark.setAttribute("x1", x(place));
    mark.setAttribute("x2", x(place));
    mark.style.display = "";
    tip.replaceChildren(el("div", {class: "soft"}, `${xLabel} ${place}`), ...near.slice(0, 12).map(({line, point}) =>
      el("div", {class: "name"}, el("i", {class: "swatch", style: `background: ${line.color}`}), `${line.name} ${shown(point[1])}`)));
    tip.hidden = false;
    const left = (x(place) / W) * box.width;
    tip.style.left = `${left > box.width / 2 ? Math.max(0, left - tip.offsetWidth - 4) : left + 24}px`;
    tip.style.top = "2.4rem";
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; mark.style.display = "none"; });
}

/** rows: [{name, values: [{color, run, value}]}]; bars of one scale. */
function barChart(title, unit, rows) {
  const most = Math.max(1e-12, ...rows.flatMap((row) => row.values.map((v) => Math.abs(v.value || 0))));
  const bars = el("div", {class: "bars"}), places = digits(most);
  for (const row of rows)
    bars.append(el("span", {}, row.name), el("div", {}, ...row.values.map((v) =>
      el("div", {class: "one", title: v.run}, el("i", {style: `width: ${(70 * Math.abs(v.value || 0)) / most}%; background: ${v.color}`}), shown(v.value, places)))));
  return el("div", {class: "card"}, el("h4", {}, title), el("p", {class: "soft"}, unit), bars);
}

/** rows: [[truth, predicted, count], ...]; color is the share of the row. */
function confusion(title, rows) {
  const names = [...new Set(rows.flatMap((row) => [row[0], row[1]]))], at = new Map(names.map((name, i) => [name, i]));
  const counts = names.map(() => names.map(() => 0));
  for (const [truth, predicted, count] of rows) counts[at.get(truth)][at.get(predicted)] += count || 0;
  const side = 300 / names.length, left = 84, short = (name) => (name.length > 13 ? name.slice(0, 12) + "…" : name);
  const svg = el("svg:svg", {viewBox: `0 0 ${left + 300} ${318 + 5 * Math.max(...names.map((name) => short(name).length))}`, role: "img", "aria-label": title});
  counts.forEach((row, i) => {
    const total = row.reduce((a, b) => a + b, 0) || 1;
    if (names.length <= 40) {
      svg.append(el("svg:text", {x: left - 4, y: (i + 0.5) * side + 4, "text-anchor": "end"}, short(names[i])));
      const x = left + (i + 0.5) * side;
      svg.append(el("svg:text", {x: x + 4, y: 306, "text-anchor": "end", transform: `rotate(-60 ${x} 306)`}, short(names[i])));
    }
    row.forEach((count, j) => {
      const share = count / total;
      const cell = el("svg:g", {class: "cell"}, el("svg:title", {}, `${names[i]}, predicted ${names[j]}: ${count} (${(100 * share).toFixed(1)} %)`));
      const color = `color-mix(in srgb, ${i === j ? "var(--c0)" : "var(--c1)"} ${Math.round(8 + 92 * Math.sqrt(share))}%, var(--back))`;
      cell.append(el("svg:rect", {x: left + j * side, y: i * side, width: side - 1, height: side - 1, rx: 2, style: `fill: ${color}`}));
      if (side > 22 && share >= 0.005)
        cell.append(el("svg:text", {x: left + (j + 0.5) * side, y: (i + 0.5) * side + 3, "text-anchor": "middle"}, (100 * share).toFixed(share < 0.1 ? 1 : 0)));
      if (share > 0.3) cell.setAttribute("class", "cell full");
      svg.append(cell);
    });
  });
  return el("div", {class: "card"}, el("h4", {}, title), el("p", {class: "soft"}, "rows: truth, columns: predicted; percent of the row"), svg);
}

/** cells: [[row, column, weight in 0..1, marked], ...], names with their place in front; black for 0, white for 1. */
function heat(title, table, cells) {
  const places = (k) => [...new Set(cells.map((cell) => cell[k]))], rows = places(0), columns = places(1);
  const word = (name) => name.slice(name.indexOf(" ") + 1), most = (names) => 12 + 6 * Math.max(...names.map((name) => word(name).length));
  const side = 16, left = most(rows), top = most(columns);
  const svg = el("svg:svg", {viewBox: `0 0 ${left + side * columns.length + 4} ${top + side * rows.length + 4}`, role: "img", "aria-label": title});
  rows.forEach((name, i) => svg.append(el("svg:text", {x: left - 4, y: top + (i + 0.5) * side + 4, "text-anchor": "end"}, word(name))));
  columns.forEach((name, j) => {
    const x = left + (j + 0.5) * side + 4;
    svg.append(el("svg:text", {x, y: top - 4, transform: `rotate(-90 ${x} ${top - 4})`}, word(name)));
  });
  for (const [row, column, weight, marked] of cells) {
    const [i, j] = [rows.indexOf(row), columns.indexOf(column)], grey = Math.round(255 * weight);
    svg.append(el("svg:rect", {x: left + j * side + 1, y: top + i * side + 1, width: side - 2, height: side - 2,
      style: `fill: rgb(${grey},${grey},${grey}); stroke: ${marked ? "#d55e00" : "none"}; stroke-width: 2`}, el("svg:title", {}, `${word(row)}, ${word(column)}: ${weight}`)));
  }
  return el("div", {class: "card"}, el("h4", {}, title), el("p", {class: "soft"}, `rows: ${table.y}, columns: ${table.x}; white: all of the weight; framed: aligned`), svg);
}
