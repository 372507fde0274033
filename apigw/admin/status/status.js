"use strict";
// Everything that comes from the gateway goes through textContent, so that no name can be markup.
const SECOND = 1000;
const NOTABLE = 0.01;  // the share of failures from which it is said aloud
const WIDTH = 600, HEIGHT = 120, ROOM = 4;
const byId = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function row(...cells) {
  const made = element("tr");
  made.append(...cells);
  return made;
}

const number = (value) => value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
const share = (part, whole) => whole ? (100 * part / whole).toFixed(1) + " %" : "–";
const seconds = (value) =>
  value === null || value === undefined ? "–" : value < 1 ? (value * 1000).toPrecision(3) + " ms" : value.toPrecision(3) + " s";

function duration(value) {
  const whole = Math.floor(value);
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => whole >= size);
  if (first < 0) return "0 s";
  let rest = whole;
  return parts.slice(first, first + 2).map(([size, unit]) => {
    const count = Math.floor(rest / size);
    rest %= size;
    return count + " " + unit;
  }).join(" ");
}

function plot(svg, length, lines) {
  const top = Math.max(...lines.flatMap((line) => line.values.map((value) => value ?? 0)), 1e-9);
  svg.replaceChildren(...lines.map(({ className, values }) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    let drawing = false;
    const steps = values.map((value, index) => {
      if (value === null) {
        drawing = false;
        return "";
      }
      const x = WIDTH * (length - values.length + index) / (length - 1);
      const y = HEIGHT - (HEIGHT - ROOM) * value / top;
      const step = (drawing ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1);
      drawing = true;
      return step;
    });
    path.setAttribute("d", steps.join("") || "M0 0");
    path.setAttribute("class", className);
    return path;
  }));
  return top;
}

function facts(status) {
  const reload = status.last_reload;
  problems("problems", reload !== null && reload.result !== "succeeded" ? status.problems : []);
  problems("upgrade-problems", status.upgrade_problem ? status.upgrade_problem.split("\n") : []);
  const pairs = [
    ["version", status.version],
    ["up for", duration(status.uptime)],
    ["last reload", reload === null ? "none yet" : reload.result + " " + duration(reload.ago) + " ago",
      reload !== null && reload.result !== "succeeded" ? "bad" : ""],
    ["connections", String(status.connections)],
    ["in flight", String(status.in_flight)],
  ];
  byId("facts").replaceChildren(...pairs.map(([name, value, className]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value, className));
    return pair;
  }));
}

function plots(history) {
  const { length, requests, failed, refused, p50, p95, p99 } = history;
  const most = plot(byId("requests"), length, [["total", requests], ["refused", refused], ["failed", failed]]
    .map(([className, values]) => ({ className, values })));
  const slowest = plot(byId("latency"), length, ["p99", "p95", "p50"].map((name) => ({ className: name, values: history[name] })));
  byId("requests-top").textContent = requests.some((value) => value > 0) ? "top: " + number(most) : "no requests";
  byId("latency-top").textContent = p99.some((value) => value !== null) ? "top: " + seconds(slowest) : "";
  byId("requests-now").textContent = !requests.length ? "" : [number(requests.at(-1)),
    ...[[refused, " 4xx"], [failed, " 5xx"]].filter(([values]) => values.at(-1)).map(([values, name]) => number(values.at(-1)) + name)].join(", ");
  byId("latency-now").textContent = p95.length && p95.at(-1) !== null
    ? "p50 " + seconds(p50.at(-1)) + ", p95 " + seconds(p95.at(-1)) + ", p99 " + seconds(p99.at(-1)) : "";
}

function circuit(state) {
  if (state === null) return element("td", "–");
  const className = { closed: "good", open: "bad", "half-open": "half" }[state.state];
  let text = state.state;
  if (state.forced) text += " by an operator";
  if (state.retry_in !== null) text += ", tries again in " + duration(state.retry_in);
  const cell = element("td", text, className);
  cell.title = state.failures + " of " + state.total + " failed";
  return cell;
}

function failures({ failed, requests }) {
  return element("td", share(failed, requests), "number" + (failed > NOTABLE * requests ? " bad" : ""));
}

function workers(list) {
  byId("of-workers").hidden = list.length === 1;
  byId("workers").replaceChildren(...list.map((worker) => row(
    element("td", String(worker.worker)), element("td", String(worker.process)), 
    element("td", worker.answers ? duration(worker.uptime) : "does not answer", worker.answers ? "" : "bad"),
    element("td", String(worker.connections), "number"),
    element("td", String(worker.in_flight), "number"),
    element("td", worker.answers ? seconds(worker.lag) : "", "number"))));
}

function services(list) {
  byId("services").replaceChildren(...list.map((service) => {
    const targets = element("td");
    for (const target of service.targets) {
      targets.append(element("div", target.url + " " + target.state, target.state === "healthy" ? "good" : "bad"));
    }
    return row(element("td", service.name), circuit(service.circuit), targets,
      element("td", number(service.rate), "number"),
      failures(service));
  }));
}

// The routes themselves change with a reload only, and are asked for then. What they counted comes every second.
const MOST_ROWS = 100;
let known = [];
let knownAt = null;
let counted = [];

async function catalogue(status) {
  const now = status.reloads + " " + status.process;
  if (knownAt === now) return;
  known = (await ask("routes.json")).routes;
  knownAt = now;
}

function joined(status) {
  const rows = known.map((route) => ({ route, requests: 0, rate: 0, p95: null, failed: 0, refused: 0, limited: 0 }));
  for (const values of status.routes) {
    const row = Object.fromEntries(status.columns.map((name, index) => [name, values[index]]));
    if (row.number < rows.length) Object.assign(rows[row.number], row);
  }
  return rows;
}

const ORDERS = {
  trouble: (a, b) => b.failed / (b.requests || 1) - a.failed / (a.requests || 1) || b.refused / (b.requests || 1) - a.refused / (a.requests || 1) || b.rate - a.rate,
  traffic: (a, b) => b.rate - a.rate,
  slow: (a, b) => (b.p95 ?? -1) - (a.p95 ?? -1),
  written: () => 0,
};

function routes() {
  const wanted = byId("filter").value.trim().toLowerCase();
  const matching = counted.filter(({ route }) =>
    !wanted || [route.path, route.name, route.service ?? ""].some((text) => text.toLowerCase().includes(wanted)));
  const shown = matching.slice().sort(ORDERS[byId("order").value]).slice(0, MOST_ROWS);
  byId("count").textContent = matching.length === counted.length ? String(counted.length) : matching.length + " of " + counted.length;
  byId("more").hidden = matching.length <= MOST_ROWS;
  byId("more").textContent = "The first " + MOST_ROWS + " are shown; the filter finds the others.";
  byId("routes").replaceChildren(...shown.map((each) => {
    const { route } = each;
    const name = element("button", route.name === route.path ? route.path : route.path + " (" + route.name + ")", "link");
    name.type = "button";
    name.addEventListener("click", () => tell(route));
    const cell = element("td");
    cell.append(name);
    return row(cell, element("td", route.methods.join(" ")), element("td", route.service ?? "–"),
      element("td", number(each.rate), "number"),
      element("td", seconds(each.p95), "number"),
      failures(each),
      element("td", share(each.refused, each.requests), "number"),
      element("td", String(each.limited), "number" + (each.limited ? " half" : "")));
  }));
}

// A click on a route asks with an example of its path, and with the first host that its name says.
function tell(route) {
  byId("method").value = route.methods[0] === "all" ? "GET" : route.methods[0];
  byId("target").value = route.path.replace(/:([A-Za-z0-9_]+)/g, "$1").replace(/\*$/, "rest");
  const host = route.name.endsWith(route.path) ? route.name.slice(0, -route.path.length) : "";
  byId("host").value = host.replace(/^\*/, "any");
  byId("header").value = "";
  explain();
}

async function explain() {
  const asked = new URLSearchParams({ method: byId("method").value.trim(), target: byId("target").value.trim() });
  for (const name of ["host", "header"]) if (byId(name).value.trim()) asked.append(name, byId(name).value.trim());
  const shown = byId("explanation");
  shown.hidden = false;
  try {
    const { found, lines } = await ask("explain?" + asked);
    shown.textContent = lines.join("\n");
    shown.className = found ? "" : "refused";
  } catch (error) {
    shown.textContent = error.message;
    shown.className = "refused";
  }
  shown.scrollIntoView({ block: "nearest" });
}

function problems(id, list) {
  byId(id).hidden = !list.length;
  byId(id).querySelector("ul").replaceChildren(...list.map((each) => element("li", each)));
}

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5 * SECOND) });
  if (!answer.ok) throw new Error("it answered " + answer.status);
  return answer.json();
}

function trouble(sentence) {
  byId("trouble").hidden = !sentence;
  byId("trouble").textContent = sentence;
}

async function refresh() {
  try {
    const status = await ask("status.json");
    await catalogue(status);
    facts(status);
    plots(status.history);
    workers(status.workers);
    services(status.services);
    counted = joined(status);
    if (!byId("routes").contains(document.activeElement)) routes();
    trouble("");
    document.documentElement.dataset.refreshed = String(Number(document.documentElement.dataset.refreshed || 0) + 1);
  } catch (error) {
    trouble("The gateway cannot be asked: " + error.message + ". What is shown is old.");
  }
  setTimeout(refresh, SECOND);
}

for (const id of ["filter", "order"]) byId(id).addEventListener("input", routes);
byId("find").addEventListener("submit", (event) => event.preventDefault());
byId("explain").addEventListener("submit", (event) => {
  event.preventDefault();
  explain();
});
refresh();
