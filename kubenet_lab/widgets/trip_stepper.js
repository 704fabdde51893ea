// One call, step by step. The kernel sends the story once; everything that moves, moves here.
const NS = "http://www.w3.org/2000/svg";
const LAYERS = [["", "all layers"], ["ends", "senders and receivers"], ["routes", "routes and sizes"], ["rules", "rules and NAT"], ["tunnel", "tunnel"], ["links", "links and MACs"]];

function render({ model, el }) {
  const root = make("div", "knl knl-w knl-trip");
  root.tabIndex = 0;
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", "One call, step by step. Arrow keys move, space plays.");
  root.dataset.lmSuppressShortcuts = "true";

  const banner = make("div", "knl-banner");
  const bar = make("div", "knl-bar");
  bar.setAttribute("role", "toolbar");
  const button = (label, name, act) => {
    const made = make("button", `knl-${name}`, label);
    made.type = "button";
    made.addEventListener("click", act);
    bar.append(made);
    return made;
  };
  button("Start", "first", () => go(0));
  button("← Back", "back", () => go(at() - 1));
  button("Forward →", "next", () => go(at() + 1));
  const play = button("Play", "play", () => { model.set("playing", !model.get("playing")); model.save_changes(); });
  const count = make("span", "knl-count");
  const layer = make("select", "knl-layer");
  layer.setAttribute("aria-label", "Show one layer");
  LAYERS.forEach(([value, label]) => { const option = make("option", "", label); option.value = value; layer.append(option); });
  layer.addEventListener("change", () => { model.set("layer", layer.value); model.save_changes(); });
  const every = make("label", "knl-every");
  const box = make("input");
  box.type = "checkbox";
  box.addEventListener("change", () => { model.set("every_step", box.checked); model.save_changes(); });
  every.append(box, " every step");
  bar.append(count, layer, every);

  const picture = make("div", "knl-picture");
  const below = make("div", "knl-below");
  const list = make("ol", "knl-steps");
  const card = make("div", "knl-card");
  const said = make("div", "knl-sentence");
  said.setAttribute("aria-live", "polite");
  const decided = make("div", "knl-decided");
  const packet = make("div", "knl-packet-card");
  card.append(said, decided, packet);
  below.append(list, card);
  const folded = make("details");
  const pre = make("pre");
  folded.append(make("summary", "", "Everything as text"), pre);
  root.append(banner, bar, picture, below, folded);
  el.append(root);

  let told, shown = [], dot, ring, raf = 0, timer = 0, last = -1;
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  const visible = (row) => (model.get("every_step") || row.main) && (!model.get("layer") || row.layer === model.get("layer"));
  const at = () => {
    const index = model.get("step");
    let best = 0;
    shown.forEach((i, n) => { if (i <= index) best = n; });
    return best;
  };
  function go(n) {
    if (!shown.length) return;
    model.set("step", shown[Math.max(0, Math.min(shown.length - 1, n))]);
    model.save_changes();
  }

  function drawMap() {
    const svg = drawing(model.get("svg"));
    dot = document.createElementNS(NS, "g");
    dot.setAttribute("class", "knl-dot");
    ring = document.createElementNS(NS, "rect");
    for (const [name, value] of [["x", -15], ["y", -11], ["width", 30], ["height", 22], ["rx", 3]]) ring.setAttribute(name, value);
    ring.setAttribute("class", "knl-outer");
    const letter = document.createElementNS(NS, "path");
    letter.setAttribute("d", "M-10-7h20v14h-20zM-10-7L0 1L10-7");
    letter.setAttribute("class", "knl-letter");
    dot.append(ring, letter);
    svg.append(dot);
    picture.replaceChildren(svg);
  }

  function drawBanner() {
    banner.className = `knl-banner ${told.delivered ? "knl-good" : "knl-bad"}`;
    banner.replaceChildren(make("strong", "", `${told.delivered ? "✓" : "✕"} ${told.headline}`));
    banner.append(make("div", "", told.delivered ? told.why : `Why: ${told.why} (${told.place})`));
    if (told.decided) banner.append(make("code", "", told.decided));
    if (told.needed) banner.append(make("div", "", `It would have needed ${told.needed}.`));
    told.lookups.forEach((lookup) => banner.append(make("div", "knl-lookup", `Name lookup: ${lookup}`)));
  }

  function drawList() {
    told = model.get("told");
    shown = told.rows.map((row, i) => [row, i]).filter(([row]) => visible(row)).map(([, i]) => i);
    layer.value = model.get("layer");
    box.checked = model.get("every_step");
    list.replaceChildren();
    let leg = -1, hop = -1;
    shown.forEach((index, n) => {
      const row = told.rows[index];
      if (row.leg !== leg) list.append(make("li", `knl-leg knl-${told.legs[row.leg].role}`, told.legs[row.leg].title));
      if (row.leg !== leg || row.hop !== hop) list.append(make("li", "knl-hop", row.place + (row.outer ? " (outer packet)" : "")));
      leg = row.leg; hop = row.hop;
      const item = make("li", "knl-item");
      const jump = make("button", "", row.title);
      jump.type = "button";
      jump.dataset.index = index;
      jump.addEventListener("click", () => go(n));
      item.append(jump);
      list.append(item);
    });
    if (!shown.length) list.append(make("li", "knl-hop", "No step of this layer."));
    drawStep();
  }

  function place(x, y) { dot.setAttribute("transform", `translate(${x} ${y})`); }

  // The way from the step shown before to this one, over every step in between that is not shown.
  function way(from, to) {
    const points = [];
    const first = from >= 0 && from < to && told.rows[from].leg === told.rows[to].leg ? from + 1 : to;
    for (let i = first; i <= to; i++) for (const p of told.rows[i].path) {
      const q = points[points.length - 1];
      if (!q || q[0] !== p[0] || q[1] !== p[1]) points.push(p);
    }
    return points;
  }

  function move(points) {
    cancelAnimationFrame(raf);
    if (!points.length) return;
    const end = points[points.length - 1];
    if (points.length === 1 || still.matches) { place(...end); return; }
    const parts = points.slice(1).map((p, i) => Math.hypot(p[0] - points[i][0], p[1] - points[i][1]));
    const total = parts.reduce((a, b) => a + b, 0);
    const duration = Math.min(900, 250 + total * 1.2), begun = performance.now();
    const tick = (now) => {
      let left = total * Math.min(1, (now - begun) / duration), i = 0;
      while (i < parts.length - 1 && left > parts[i]) left -= parts[i++];
      const part = parts[i] ? Math.min(1, left / parts[i]) : 1;
      place(points[i][0] + (points[i + 1][0] - points[i][0]) * part, points[i][1] + (points[i + 1][1] - points[i][1]) * part);
      if (now - begun < duration) raf = requestAnimationFrame(tick);
    };
    raf = requestAnimationFrame(tick);
  }

  function drawHeaders(headers) {
    packet.replaceChildren(make("h4", "", "The packet after this step"));
    let level = packet, depth = -1;
    headers.forEach((header) => {
      if (header.depth > depth || level === packet) {
        const letter = make("div", "knl-envelope");
        if (header.depth > 0) letter.append(make("div", "knl-inside", "inside it:"));
        level.append(letter);
        level = letter;
        depth = header.depth;
      }
      const line = make("div", `knl-header ${header.mark ? "knl-" + header.mark : ""}`);
      line.append(make("b", "", header.name));
      if (header.mark) line.append(make("span", "knl-tag", header.mark));
      header.fields.forEach(([name, value, mark, was]) => {
        const field = make("span", `knl-field ${mark === "changed" ? "knl-changed" : ""}`);
        field.append(make("i", "", name + " "), make("code", "", value));
        if (mark === "changed") field.append(make("span", "knl-was", ` changed, was ${was}`));
        line.append(field);
      });
      level.append(line);
    });
  }

  function drawStep() {
    const index = model.get("step"), n = at();
    const row = told.rows[shown.length ? shown[n] : index];
    if (!row) return;
    const now = shown.length ? shown[n] : index;
    count.textContent = shown.length ? `step ${n + 1} of ${shown.length}` : "no step";
    said.replaceChildren(make("div", "knl-where", row.place), make("h3", "", row.title), make("p", "", row.sentence));
    decided.replaceChildren();
    if (row.entry) decided.append(make("div", "knl-label", "Decided by"), make("code", "knl-entry", row.entry));
    if (row.command) decided.append(make("div", "knl-command", `See it in ${row.place}: ${row.command}`));
    if (row.conntrack) decided.append(make("div", "knl-label", "Connection tracked"), make("code", "knl-entry", row.conntrack));
    drawHeaders(told.headers[row.headers]);
    list.querySelectorAll("button").forEach((jump) => {
      const is = Number(jump.dataset.index) === now;
      jump.toggleAttribute("aria-current", is);
      if (is) jump.setAttribute("aria-current", "step");
      if (is) list.scrollTop = jump.offsetTop - list.offsetTop - list.clientHeight / 2;
    });
    picture.querySelectorAll(".hit").forEach((hit) => hit.classList.toggle("knl-here", `${hit.dataset.netns}#${hit.dataset.link}` === row.at));
    picture.querySelectorAll(".way").forEach((g) => {
      const leg = Number(g.dataset.leg);
      const call = !told.legs[leg].lookup;
      g.style.opacity = leg === row.leg ? 1 : call ? 0.22 : 0;
    });
    ring.style.display = row.outer || told.headers[row.headers].some((h) => h.depth > 0 && h.mark !== "removed") ? "" : "none";
    move(way(last, now));
    last = now;
    clearTimeout(timer);
    if (model.get("playing")) timer = setTimeout(() => {
      if (at() < shown.length - 1) go(at() + 1);
      else { model.set("playing", false); model.save_changes(); }
    }, model.get("pace"));
  }

  function onPlaying() {
    const on = model.get("playing");
    play.textContent = on ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(on));
    clearTimeout(timer);
    if (!on) return;
    if (at() >= shown.length - 1) go(0); else go(at() + 1);
  }

  root.addEventListener("keydown", (event) => {
    if (event.target.tagName === "SELECT" || event.altKey || event.ctrlKey || event.metaKey) return;
    const on = { ArrowRight: () => go(at() + 1), ArrowLeft: () => go(at() - 1), Home: () => go(0), End: () => go(shown.length - 1) };
    if (event.key === " " && event.target === root) on[" "] = () => play.click();
    if (!on[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    on[event.key]();
  });

  function start() {
    told = model.get("told");
    last = -1;
    drawMap();
    drawBanner();
    pre.textContent = model.get("words");
    drawList();
  }
  start();
  const on = [["change:step", drawStep], ["change:playing", onPlaying], ["change:every_step", drawList], ["change:layer", drawList], ["change:told", start]];
  on.forEach(([name, act]) => model.on(name, act));
  return () => {
    cancelAnimationFrame(raf);
    clearTimeout(timer);
    on.forEach(([name, act]) => model.off(name, act));
  };
}
export default { render };
