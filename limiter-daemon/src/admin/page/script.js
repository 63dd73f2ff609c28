"use strict";
// Everything shown is read from the daemon's own pages and written as text, never as HTML: names of
// policies, reasons and addresses are others' words.
(() => {
  const EVERY = 2000;          // milliseconds between two looks
  const KEPT = 150;            // points of a chart: five minutes
  const SHOWN = 100;           // rows of a table
  const NS = "http://www.w3.org/2000/svg";
  const $ = (id) => document.getElementById(id);

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function drawn(name, attributes) {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function trouble(text) {
    $("trouble").textContent = text;
    $("trouble").hidden = text === "";
  }
  window.addEventListener("error", (event) => trouble("this page is at fault: " + event.message));
  window.addEventListener("unhandledrejection", (event) => trouble("this page is at fault: " + event.reason));
  document.addEventListener("securitypolicyviolation", (event) => trouble("refused by policy: " + event.violatedDirective));

  // --- The metrics page: samples by name, each with its labels.

  function parse(text) {
    const samples = new Map();
    const labels = /([a-zA-Z_0-9]+)="((?:[^"\\]|\\.)*)"/g;
    for (const line of text.split("\n")) {
      if (line === "" || line.startsWith("#")) continue;
      const space = line.lastIndexOf(" ");
      const brace = line.indexOf("{");
      const name = brace < 0 ? line.slice(0, space) : line.slice(0, brace);
      const of = {};
      if (brace >= 0) {
        for (const [, key, value] of line.slice(brace, space).matchAll(labels)) {
          of[key] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
        }
      }
      const value = line.slice(space + 1);
      if (!samples.has(name)) samples.set(name, []);
      samples.get(name).push({ labels: of, value: value === "+Inf" ? Infinity : Number(value) });
    }
    return samples;
  }

  const fits = (labels, wanted) => Object.entries(wanted).every(([key, value]) => labels[key] === value);

  /** Samples of one moment. */
  class Scrape {
    constructor(text, at) { this.samples = parse(text); this.at = at; }
    all(name, wanted = {}) { return (this.samples.get(name) || []).filter((one) => fits(one.labels, wanted)); }
    sum(name, wanted = {}) { return this.all(name, wanted).reduce((sum, one) => sum + one.value, 0); }
    values(name, label) { return [...new Set(this.all(name).map((one) => one.labels[label]))]; }
  }

  let before = null;
  let last = null;

  /** How much a counter grows in a second; a daemon that began anew counts from 0. */
  function rate(name, wanted = {}) {
    if (before === null) return null;
    const [then, now] = [before.sum(name, wanted), last.sum(name, wanted)];
    const seconds = (last.at - before.at) / 1000;
    return seconds > 0 ? (now >= then ? now - then : now) / seconds : null;
  }

  const plus = (...rates) => (rates.some((one) => one === null) ? null : rates.reduce((a, b) => a + b, 0));

  function number(value, digits = 1) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const scale = [[1e9, "G"], [1e6, "M"], [1e4, "k"]].find(([at]) => value >= at);
    if (scale) return (value / (scale[1] === "k" ? 1e3 : scale[0])).toFixed(1) + " " + scale[1];
    return Number.isInteger(value) ? String(value) : value.toFixed(value < 1 ? Math.max(digits, 2) : digits);
  }

  function time(seconds) {
    if (seconds === null) return "–";
    if (!Number.isFinite(seconds)) return "> 1 s";
    return seconds < 1e-3 ? "< " + Math.ceil(seconds * 1e6) + " µs" : "< " + seconds * 1e3 + " ms";
  }

  /** The bound that this share of what was decided since the last look is below. */
  function quantile(share) {
    if (before === null) return null;
    const ends = new Map();
    for (const [scrape, sign] of [[last, 1], [before, -1]]) {
      for (const { labels, value } of scrape.all("limiterd_added_latency_seconds_bucket")) {
        const end = labels.le === "+Inf" ? Infinity : Number(labels.le);
        ends.set(end, (ends.get(end) || 0) + sign * value);
      }
    }
    const total = ends.get(Infinity) || 0;
    if (total <= 0) return null;
    const sorted = [...ends].sort(([a], [b]) => a - b);
    return sorted.find(([, below]) => below >= share * total)[0];
  }

  // --- Tables: columns are [title, kind], rows are cells of text, or of elements.

  function table(id, columns, rows, none) {
    const place = $(id);
    if (rows.length === 0) {
      place.replaceChildren(element("p", { class: "none" }, none));
      return;
    }
    const head = element("tr", {}, ...columns.map(([title, kind]) => element("th", { scope: "col", class: kind }, title)));
    const body = rows.slice(0, SHOWN).map((row) => element("tr", {}, ...row.map((cell, at) => {
      const [text, mark] = Array.isArray(cell) ? cell : [cell, ""];
      return element("td", { class: (columns[at][1] + " " + mark).trim() }, text);
    })));
    const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
    const scrolled = place.scrollLeft;
    place.replaceChildren(made);
    if (rows.length > SHOWN) place.append(element("p", { class: "none" }, "and " + (rows.length - SHOWN) + " more"));
    place.scrollLeft = scrolled;
  }

  const marked = (value, mark) => [number(value), value > 0 ? mark : ""];

  function meter(value, most, title) {
    return element("meter", { min: 0, max: Math.max(most, 1), value: Math.min(value, most), title });
  }

  // --- Charts: lines over the last minutes.

  const charts = { "chart-requests": { points: [], lines: [] }, "chart-packets": { points: [], lines: [] } };

  function chart(id, lines) {
    const { points } = charts[id];
    points.push(lines.map((line) => line.value));
    if (points.length > KEPT) points.shift();
    charts[id].lines = lines;
    draw(id);
  }

  /** A unit of the drawing is a pixel of the screen, so that letters keep their shape on any. */
  function draw(id) {
    const { points, lines } = charts[id];
    if (lines.length === 0) return;
    const known = points.filter((point) => point.length === lines.length);
    const top = Math.max(1, ...known.flat().filter((value) => value !== null));
    const [width, height, left, above, below] = [$(id).clientWidth || 600, 180, 46, 14, 18];
    const high = (share) => height - below - share * (height - above - below);
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    svg.setAttribute("aria-label", lines.map((line) => `${line.name}: ${number(line.value)}`).join(", "));
    for (const share of [0, 0.5, 1]) {
      const y = high(share);
      svg.append(drawn("line", { x1: left, x2: width, y1: y, y2: y }));
      const label = drawn("text", { x: left - 6, y: y + 4, class: "end" });
      label.textContent = number(share * top);
      svg.append(label);
    }
    for (const [text, x, kind] of [[`${KEPT * EVERY / 60000} min ago`, left, "begin"], ["now", width, "end"]]) {
      const label = drawn("text", { x, y: height - 4, class: kind });
      label.textContent = text;
      svg.append(label);
    }
    lines.forEach((line, index) => {
      const path = [];
      points.forEach((point, at) => {
        const value = point[index];
        if (value === null || value === undefined) return;
        const x = left + (width - left) * (KEPT - points.length + at + 1) / KEPT;
        path.push(`${x.toFixed(1)},${high(value / top).toFixed(1)}`);
      });
      svg.append(drawn("polyline", { points: path.join(" "), class: line.kind }));
    });
    const legend = element("ul", { class: "legend" }, ...lines.map((line) =>
      element("li", { class: line.kind }, element("span", {}, `${line.name} ${number(line.value)}`))));
    $(id).replaceChildren(svg, legend);
  }

  window.addEventListener("resize", () => Object.keys(charts).forEach(draw));

  // --- What is shown, from the metrics.

  const limited = (route) => {
    const wanted = route === undefined ? {} : { route };
    return plus(rate("envoy_http_local_rate_limit_enforced", wanted), rate("envoy_http_ratelimit_over_limit", wanted));
  };
  const answered = (classes, route) => plus(...classes.map((response_code_class) =>
    rate("limiterd_downstream_rq_total", route === undefined ? { response_code_class } : { response_code_class, route })));

  function requests() {
    const accepted = answered(["1xx", "2xx", "3xx"]);
    const refused = limited();
    const dropped = rate("limiterd_xdp_packets_total", { verdict: "dropped" });
    const broken = answered(["5xx"]);
    $("now-accepted").textContent = number(accepted);
    $("now-limited").textContent = number(refused);
    $("now-dropped").textContent = number(dropped);
    $("now-broken").textContent = number(broken);
    $("now-latency").textContent = time(quantile(0.99));
    chart("chart-requests", [
      { name: "accepted", kind: "accepted", value: accepted },
      { name: "limited", kind: "limited", value: refused },
      { name: "broken", kind: "broken", value: broken },
      { name: "other answers (4xx)", kind: "other", value: last.at && answered(["4xx"]) === null ? null : Math.max(0, answered(["4xx"]) - refused) },
    ]);
    chart("chart-packets", [
      { name: "passed", kind: "accepted", value: rate("limiterd_xdp_packets_total", { verdict: "passed" }) },
      { name: "dropped", kind: "dropped", value: dropped },
    ]);
    const routes = last.values("limiterd_downstream_rq_total", "route");
    const rows = routes.map((route) => [route, answered(["1xx", "2xx", "3xx"], route), limited(route), answered(["4xx"], route), answered(["5xx"], route)]);
    rows.sort((a, b) => b[2] - a[2] || b[1] - a[1] || a[0].localeCompare(b[0]));
    table("routes", [["route", "name"], ["accepted/s", "number"], ["limited/s", "number"], ["4xx/s", "number"], ["5xx/s", "number"]],
      rows.map(([route, good, over, client, bad]) => [route, number(good), marked(over, "limited"), number(client), marked(bad, "broken")]),
      "no route has had a request");
  }

  function rules() {
    const rows = [];
    for (const [reach, name] of [["local", "limiterd_local_rate_limit_total"], ["global", "limiterd_global_rate_limit_total"]]) {
      for (const { labels } of last.all(name, { decision: "ok" })) {
        const wanted = { rule: labels.rule, route: labels.route };
        const of = (decision) => rate(name, { ...wanted, decision });
        const limit = { ...wanted, limit: reach, candidate: "" };
        const tokens = last.all("limiterd_rate_limit_tokens", limit)[0];
        const back = last.sum("limiterd_rate_limit_tokens_per_second", limit);
        const text = tokens === undefined ? "unlimited" : `${number(tokens.value)}, ${number(back, 3)}/s`;
        rows.push([labels.rule, reach, labels.route || "(all)", text, of("ok"), of("over_limit"), of("shadow_over_limit"),
          last.sum(name, { ...wanted, decision: "over_limit" })]);
      }
    }
    rows.sort((a, b) => b[5] - a[5] || b[7] - a[7] || b[4] - a[4]);
    table("rules", [["rule", "name"], ["", ""], ["route", "name"], ["holds", "number"], ["ok/s", "number"], ["over/s", "number"], ["shadow/s", "number"], ["over, ever", "number"]],
      rows.map((row) => [row[0], row[1], row[2], row[3], number(row[4]), marked(row[5], "limited"), marked(row[6], "limited"), number(row[7])]),
      "there is no limit on requests");
  }

  function network() {
    const name = "limiterd_xdp_packets_total";
    const policies = [...new Set([...last.values("limiterd_xdp_limit", "policy"), ...last.values(name, "policy")])].filter((one) => one !== "" && one !== undefined);
    const rows = policies.map((policy) => {
      const drops = last.all(name, { policy, verdict: "dropped" }).filter((one) => one.value > 0);
      const reasons = [...new Set(drops.map((one) => one.labels.reason))].join(", ");
      const limits = last.all("limiterd_xdp_limit", { policy, class: "default" })
        .map((one) => `${number(one.value)} ${one.labels.unit}`).join(", ");
      return [policy, limits, number(rate(name, { policy, verdict: "passed" })), marked(rate(name, { policy, verdict: "dropped" }), "dropped"),
        number(last.sum(name, { policy, verdict: "dropped" })), reasons];
    });
    table("network", [["policy", "name"], ["holds", ""], ["passed/s", "number"], ["dropped/s", "number"], ["dropped, ever", "number"], ["for", ""]], rows,
      "the kernel half is not in use, or no policy is for it");
  }

  function backends() {
    const rows = last.all("limiterd_circuit_breaker_limit", { resource: "requests" }).map(({ labels }) => {
      const wanted = { envoy_cluster_name: labels.envoy_cluster_name, policy: labels.policy };
      const use = (used, resource) => {
        const [value, most] = [last.sum(used, wanted), last.sum("limiterd_circuit_breaker_limit", { ...wanted, resource })];
        return element("span", {}, meter(value, most, `${value} of ${most}`), ` ${number(value)}/${number(most)}`);
      };
      const open = ["rq_open", "rq_pending_open", "cx_open"].filter((what) => last.sum("envoy_cluster_circuit_breakers_default_" + what, wanted) > 0);
      const [well, all] = [last.sum("envoy_cluster_membership_healthy", wanted), last.sum("envoy_cluster_membership_total", wanted)];
      return [labels.envoy_cluster_name + (labels.policy ? ` (${labels.policy})` : ""), [open.length ? "open" : "closed", open.length ? "bad" : ""],
        use("envoy_cluster_upstream_rq_active", "requests"), use("envoy_cluster_upstream_cx_active", "connections"),
        marked(rate("envoy_cluster_upstream_rq_pending_overflow", wanted), "broken"), number(rate("envoy_cluster_upstream_rq_retry", wanted)),
        [`${well}/${all}`, well < all ? "bad" : ""]];
    });
    table("backends", [["backend", "name"], ["breaker", ""], ["requests", "number"], ["connections", "number"], ["refused/s", "number"], ["retries/s", "number"], ["healthy", "number"]], rows,
      "there is no backend");
  }

  // --- What is shown, from the other pages.

  function sources([top, told]) {
    const dropped = (top || []).map((one) => {
      const bucket = one.tightest;
      const left = bucket === null ? "–" : element("span", {}, meter(bucket.remaining, bucket.capacity, `${bucket.remaining} of ${bucket.capacity} ${bucket.unit}`),
        ` ${number(bucket.remaining)}/${number(bucket.capacity)} ${bucket.unit}`);
      return [one.drops_per_second, one.source, `packets: ${one.reason}${one.shadow ? " (shadow)" : ""}`, marked(one.drops_per_second, "dropped"),
        one.policy, left, `${one.seconds_ago} s ago`];
    });
    const limited = ((told && told.limited) || []).map((one) => [one.limited_per_second, one.client, `requests${one.route ? ` on ${one.route}` : ""}`,
      marked(one.limited_per_second, "limited"), one.rule || "rate limit service", "–", `${one.seconds_ago} s ago`]);
    const rows = [...dropped, ...limited].sort((a, b) => b[0] - a[0]).map((row) => row.slice(1));
    table("sources", [["source", "name"], ["denied", "name"], ["a second", "number"], ["policy or rule", "name"], ["tokens left", "number"], ["last", "number"]], rows,
      "nobody is being denied");
  }

  function blocks(list) {
    const newest = (list || []).slice().sort((a, b) => (b.since || "").localeCompare(a.since || ""));
    table("blocks", [["network", "name"], ["why", "name"], ["rule", "name"], ["by", "name"], ["on", ""], ["since", ""], ["left", "number"]],
      newest.map((one) => [one.cidr, one.why || "–", one.rule, one.by || "–", one.scope === "fleet" ? "all nodes" : "this node", (one.since || "–").replace("T", " "), `${one.seconds_left} s`]),
      list === null ? "nothing can be blocked: there is neither a kernel half nor a store" : "nobody is blocked");
  }

  function node(view) {
    $("node").textContent = `${view.name} · ${view.version}`;
    $("state").textContent = view.ready ? "ready" : view.report[0];
    $("state").className = view.ready ? "good" : "bad";
    $("state").title = view.report.join("\n");
    $("policy").textContent = `${view.policy.directory}, fingerprint ${view.policy.fingerprint}, in force since ${view.policy.in_force_since.replace("T", " ")}`;
    const asked = rate("limiterd_store_requests_total");
    const failed = plus(...["timeout", "error", "not_asked"].map((result) => rate("limiterd_store_requests_total", { result })));
    $("store").textContent = view.store === null
      ? "No store is shared: each node counts for itself."
      : `${view.store.address}: ${view.store.breaker === "closed" ? "asked" : view.store.breaker}, ${view.store.connections} connections, ${number(asked)} questions/s, ${number(failed)} of them without an answer`;
  }

  function fleet(view) {
    const rows = ((view && view.nodes) || []).map((one) => [one.name + (one.here ? " (here)" : ""), one.address, one.version,
      [`${number(one.seconds_since_beat)} s`, one.seconds_since_beat > 10 ? "bad" : ""], number(one.blocks), [one.caught_up ? "yes" : "no", one.caught_up ? "" : "bad"]]);
    table("fleet", [["node", "name"], ["address", "name"], ["version", ""], ["seen", "number"], ["blocks", "number"], ["caught up", ""]], rows,
      view === null ? "this node is alone" : "no node is seen: " + (view.away || "the store does not answer"));
  }

  function tree(value, name) {
    if (value === null || typeof value !== "object") return element("p", {}, `${name}: ${value}`);
    const inner = Object.entries(value);
    const title = value.name || value.host || "";
    const details = element("details", {}, element("summary", {}, `${name}${title ? " " + title : ""} (${inner.length})`));
    // What is closed is not made: a plan may be large.
    details.addEventListener("toggle", () => details.append(...inner.map(([key, one]) => tree(one, key))), { once: true });
    return details;
  }

  let loaded = "";

  function config(view) {
    const load = view.last_load;
    table("findings", [["", ""], ["where", "name"], ["what", "name"]], load.findings.map((one) => [
      [one.severity, one.severity === "error" ? "bad" : "limited"],
      [one.resource, one.field, `${one.file}${one.line ? ":" + one.line : ""}`].filter(Boolean).join(" "),
      one.message + (one.remedy ? `; ${one.remedy}` : "")]),
      load.applied ? "read without a warning" : "the last reading was refused: " + load.rejected);
    const text = JSON.stringify(view.plan);
    if (text === loaded) return;
    loaded = text;
    $("plan").querySelector(".tree").replaceChildren(...Object.entries(view.plan).map(([key, one]) => tree(one, key)));
  }

  // --- Looking, every two seconds while somebody looks.

  async function get(path, kind) {
    const answer = await asking(path, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (answer.status === 404) return null;
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${(await answer.text()).slice(0, 200)}`);
    return kind === "text" ? answer.text() : answer.json();
  }

  async function look() {
    const [page, ...rest] = await Promise.all([get("/metrics", "text"), get("/node"), Promise.all([get("/l4/top"), get("/offenders")]), get("/blocks"), get("/fleet"), get("/config")]);
    before = last;
    last = new Scrape(page, performance.now());
    requests(); rules(); network(); backends();
    [node, sources, blocks, fleet, config].forEach((show, at) => show(rest[at]));
    document.body.dataset.looks = Number(document.body.dataset.looks || 0) + 1;
  }

  let paused = false;
  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").textContent = paused ? "Go on" : "Pause";
    $("pause").setAttribute("aria-pressed", String(paused));
  });

  async function forever() {
    for (;;) {
      if (!paused && !document.hidden) {
        try {
          await look();
          trouble("");
        } catch (error) {
          trouble(`the daemon does not answer as it should: ${error.message}`);
          $("state").textContent = "not reached";
          $("state").className = "bad";
        }
      }
      await new Promise((done) => setTimeout(done, EVERY));
    }
  }
  forever();
})();
