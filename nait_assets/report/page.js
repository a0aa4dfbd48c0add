"use strict";
// Draws the charts, and searches, sorts and pages the table. Text of a candidate is only ever set as text.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);

const options = {
  actions: false,
  config: {
    axis: { labelLimit: 140, titleFontWeight: "normal", labelColor: "#1b2733", titleColor: "#5b6876", grid: false },
    view: { stroke: null },
    legend: { labelLimit: 160 },
  },
};

async function drawCharts(root) {
  for (const place of root.querySelectorAll("[data-chart]:not([data-begun])")) {
    if (place.closest("details:not([open])")) continue; // it is drawn when someone unfolds it
    place.dataset.begun = "yes";
    const spec = data.charts[Number(place.dataset.chart)];
    const renderer = spec.usermeta ? spec.usermeta.renderer : "svg";
    await vegaEmbed(place, spec, { ...options, renderer });
  }
}

function showRatio() {
  const ratio = element("ratio").value;
  for (const figure of document.querySelectorAll("figure[data-ratio]")) {
    figure.hidden = figure.dataset.ratio !== ratio;
  }
}

function node(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

class Table {
  static ROWS_OF_A_PAGE = 50;

  constructor(table) {
    Object.assign(this, table);
    this.words = this.candidates.map((row) => [row[0], row[1], row[4], row[5]].join("\n").toLowerCase());
    this.sort = { by: "rank", up: true };
    this.page = 0;
    this.columns = element("rows").tHead.rows[0].cells.length;
  }

  search() {
    const target = element("filter-target").value;
    this.ratio = Number(element("filter-ratio").value);
    const words = element("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = this.candidates.map((_, number) => words.every((word) => this.words[number].includes(word)));
    const ofRatio = this.choices.filter(([, , , , ratios]) => ratios & (1 << this.ratio));
    this.nTargets = new Map();
    for (const [, number] of ofRatio) this.nTargets.set(number, (this.nTargets.get(number) || 0) + 1);
    this.found = ofRatio.filter(([place, number]) => fits[number] && (target === "" || place === Number(target)));
    this.arrange();
  }

  key(choice) {
    const [place, number, rank, score] = choice;
    const candidate = this.candidates[number];
    const keys = {
      rank, score, target: this.targets[place], targets: this.nTargets.get(number), topic: candidate[1], text: candidate[4],
    };
    return keys[this.sort.by];
  }

  arrange() {
    const keys = new Map(this.found.map((choice) => [choice, this.key(choice)]));
    const sign = this.sort.up ? 1 : -1;
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
    this.found.sort((a, b) => sign * compare(keys.get(a), keys.get(b)) || a[2] - b[2] || a[0] - b[0]);
    this.page = 0;
    this.show();
  }

  show() {
    const size = Table.ROWS_OF_A_PAGE;
    const nPages = Math.max(1, Math.ceil(this.found.length / size));
    this.page = Math.min(Math.max(this.page, 0), nPages - 1);
    const rows = this.found.slice(this.page * size, (this.page + 1) * size).map((choice) => this.row(choice));
    element("rows").tBodies[0].replaceChildren(...rows);
    element("found").textContent = `${this.found.length.toLocaleString("en")} rows`;
    element("page").textContent = `page ${this.page + 1} of ${nPages}`;
    element("previous").disabled = this.page === 0;
    element("next").disabled = this.page === nPages - 1;
    for (const head of document.querySelectorAll("#rows th[data-sort]")) {
      const active = head.dataset.sort === this.sort.by;
      head.setAttribute("aria-sort", active ? (this.sort.up ? "ascending" : "descending") : "none");
    }
  }

  row([place, number, rank, score]) {
    const candidate = this.candidates[number];
    const row = node("tr", undefined, "row");
    row.title = "show everything about this row";
    row.append(
      node("td", rank.toLocaleString("en"), "number"),
      node("td", this.targets[place]),
      node("td", score.toPrecision(4), "number"),
      node("td", String(this.nTargets.get(number)), "number"),
      node("td", candidate[1] || "–"),
    );
    const text = node("td");
    text.append(node("div", candidate[4], "short"));
    row.append(text);
    const key = `${place}:${number}`;
    const reasons = this.reasons[key] || [];
    const near = (this.near[key] || []).map(([value, capability, id]) => [value, capability, ...(this.near_texts[id] || [id, ""])]);
    const parts = this.parts[key] || [];
    const short = reasons.map(([label]) => label).join(", ") || [...parts.map((one) => one[1]), ...near.map((one) => one[2]), ""][0];
    if (this.columns > 6) row.append(node("td", short));
    const margins = this.margins(place, rank, score);
    const margin = margins ? [["above the last row chosen", margins]] : [];
    row.addEventListener("click", () => this.toggle(row, candidate, [...margin, ...parts, ...reasons], near));
    return row;
  }

  margins(place, rank, score) {
    const of = ([last, least], ratio) => `${this.ratios[ratio]}: by ${(score - least).toPrecision(3)} (that one has rank ${last.toLocaleString("en")})`;
    const chosen = this.last[place].map((last, ratio) => (last && rank <= last[0] ? of(last, ratio) : "")).filter(Boolean);
    return chosen.join("; ");
  }

  toggle(row, candidate, reasons, near) {
    if (row.nextSibling && row.nextSibling.className === "detail") return row.nextSibling.remove();
    const cell = node("td");
    cell.colSpan = this.columns;
    const entry = (name, text) => {
      const line = node("p");
      line.append(node("b", `${name} `), text);
      cell.append(line);
    };
    entry("question", candidate[4]);
    entry("answer", candidate[5]);
    entry("from", `${this.sources[candidate[2]]}, row ${candidate[3] ?? "unknown"}, id ${candidate[0]}`);
    for (const [label, detail] of reasons) entry(label, detail);
    for (const [value, capability, question, answer] of near) entry(`near ${value}`, `${capability}: ${question} → ${answer}`);
    const detail = node("tr", undefined, "detail");
    detail.append(cell);
    row.after(detail);
  }
}

function connect(table) {
  let waiting;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => table.search(), 120);
  };
  element("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["filter-target", "filter-ratio"]) element(id).addEventListener("change", () => table.search());
  element("filter-text").addEventListener("input", soon);
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    element(id).addEventListener("click", () => {
      table.page += step;
      table.show();
    });
  }
  for (const head of document.querySelectorAll("#rows th[data-sort]")) {
    head.addEventListener("click", () => {
      const by = head.dataset.sort;
      const larger = by === "score" || by === "targets";
      table.sort = { by, up: table.sort.by === by ? !table.sort.up : !larger };
      table.arrange();
    });
  }
  table.search();
}

element("ratio").addEventListener("change", showRatio);
showRatio();
if (data.table) connect(new Table(data.table));
for (const folded of document.querySelectorAll("details")) {
  folded.addEventListener("toggle", () => drawCharts(folded));
}
drawCharts(document).then(() => { document.body.dataset.drawn = "yes"; });
