// A tree of rules: fold, search, follow one packet. The kernel sends its rows once; all else happens here.
const MOST = 600;

let made = 0;

function render({ model, el }) {
  const root = make("div", "knl knl-w knl-tree");
  root.dataset.lmSuppressShortcuts = "true";
  const head = make("strong", "knl-tree-title");
  const bar = make("div", "knl-bar");
  const search = make("input", "knl-search");
  search.type = "search";
  search.placeholder = "search: an address, a chain, a name";
  search.setAttribute("aria-label", "Search the rules");
  const path = make("label", "knl-only");
  const box = make("input");
  box.type = "checkbox";
  path.append(box, " only what the packet met");
  const button = (label, name, act) => {
    const one = make("button", `knl-${name}`, label);
    one.type = "button";
    one.addEventListener("click", act);
    return one;
  };
  const said = make("span", "knl-said");
  said.setAttribute("aria-live", "polite");
  bar.append(
    search, path,
    button("Unfold all", "unfold", () => { rows.forEach((row, i) => { if (row.last > i) open.add(i); }); draw(); }),
    button("Fold all", "fold", () => { open.clear(); draw(); }),
    said,
  );
  const tree = make("div", "knl-rules");
  tree.setAttribute("role", "tree");
  const folded = make("details");
  const pre = make("pre");
  folded.append(make("summary", "", "Everything as text"), pre);
  root.append(head, bar, tree, folded);
  el.append(root);

  const id = `knl-tree-${++made}`;
  let rows = [], shown = [], open = new Set(), here = 0;

  function load() {
    rows = model.get("rows").map((row) => ({ ...row, parent: -1, last: 0 }));
    const way = [];
    rows.forEach((row, i) => {
      way.length = row.depth;
      row.parent = row.depth ? way[row.depth - 1] : -1;
      way[row.depth] = i;
    });
    for (let i = rows.length - 1; i >= 0; i--) {
      rows[i].last = Math.max(rows[i].last, i);
      const up = rows[i].parent;
      if (up >= 0) rows[up].last = Math.max(rows[up].last, rows[i].last);
    }
    const followed = rows.some((row) => row.met);
    open = new Set();
    rows.forEach((row, i) => { if (followed ? row.met : row.depth < 1) open.add(i); });
    here = Math.max(0, rows.findIndex((row) => row.met));
    head.textContent = model.get("title");
    tree.setAttribute("aria-label", `Rules of ${model.get("title")}. Arrow keys move, open and close.`);
    box.parentElement.style.display = followed ? "" : "none";
    pre.textContent = model.get("words");
    draw();
  }

  // What a search or the packet's path keeps: the hits, all above them, and for a search all below them.
  function kept() {
    const query = model.get("query").trim().toLowerCase(), only = model.get("only_path");
    if (!query && !only) return null;
    const out = new Map();
    const keep = (i, hit) => {
      out.set(i, hit || out.get(i) || false);
      for (let up = rows[i].parent; up >= 0; up = rows[up].parent) if (!out.has(up)) out.set(up, false);
    };
    rows.forEach((row, i) => {
      if (only && !row.met) return;
      if (!query) keep(i, false);
      else if (`${row.text} ${row.words}`.toLowerCase().includes(query)) {
        keep(i, true);
        for (let j = i + 1; j <= row.last; j++) if (!only || rows[j].met) out.set(j, out.get(j) || false);
      }
    });
    return out;
  }

  function draw() {
    const keep = kept();
    search.value === model.get("query") || (search.value = model.get("query"));
    box.checked = model.get("only_path");
    shown = [];
    let left = 0;
    for (let i = 0; i < rows.length; i++) {
      if (keep && !keep.has(i)) continue;
      if (shown.length < MOST) shown.push(i); else left++;
      if (!keep && !open.has(i)) i = rows[i].last;
    }
    if (shown.length && !shown.includes(here)) here = shown.find((i) => keep && keep.get(i)) ?? shown[0];
    tree.replaceChildren(...shown.map((i) => line(i, keep)));
    if (left) tree.append(make("p", "knl-said", `and ${left.toLocaleString("en")} lines more: search for what you look for`));
    if (!shown.length) tree.append(make("p", "knl-said", keep ? "Nothing holds that." : "There are no rules."));
    const hits = keep ? [...keep.values()].filter(Boolean).length : 0;
    said.textContent = model.get("query").trim() ? `${hits} line${hits === 1 ? "" : "s"} found` : "";
  }

  function line(i, keep) {
    const row = rows[i], node = make("div", `knl-row knl-is-${row.kind}${row.met ? " knl-met" : ""}${keep && keep.get(i) ? " knl-hit" : ""}`);
    const parent = row.last > i, opened = keep ? true : open.has(i);
    node.id = `${id}-${i}`;
    node.setAttribute("role", "treeitem");
    node.setAttribute("aria-level", row.depth + 1);
    if (parent) node.setAttribute("aria-expanded", opened);
    node.setAttribute("aria-selected", i === here);
    node.tabIndex = i === here ? 0 : -1;
    node.style.paddingLeft = `${6 + row.depth * 17}px`;
    const fold = make("span", "knl-fold", parent ? (opened ? "▾" : "▸") : "");
    fold.setAttribute("aria-hidden", "true");
    const mark = make("span", "knl-mark", row.met ? "●" : "");
    if (row.met) mark.setAttribute("aria-label", "the packet met it");
    const code = make("code", "", row.text), words = make("span", "knl-behind");
    if (row.share !== null) {
      const gauge = make("span", "knl-share"), full = make("span", "");
      full.style.width = `${Math.round(row.share * 100)}%`;
      gauge.setAttribute("aria-hidden", "true");
      gauge.append(full);
      words.append(gauge);
    }
    words.append(row.words);
    node.append(fold, mark, code, words);
    node.addEventListener("click", () => { here = i; if (parent && !kept()) toggle(i); else draw(); focus(); });
    return node;
  }

  function toggle(i) {
    if (open.has(i)) open.delete(i); else open.add(i);
    draw();
  }
  function focus() {
    const node = document.getElementById(`${id}-${here}`);
    if (node) { node.focus({ preventScroll: true }); node.scrollIntoView({ block: "nearest" }); }
  }
  function move(to) {
    if (to === undefined) return;
    here = to;
    tree.querySelectorAll("[role=treeitem]").forEach((node) => {
      const mine = node.id === `${id}-${here}`;
      node.tabIndex = mine ? 0 : -1;
      node.setAttribute("aria-selected", mine);
    });
    focus();
  }

  tree.addEventListener("keydown", (event) => {
    const at = shown.indexOf(here), row = rows[here];
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const free = !kept();
    const act = {
      ArrowDown: () => move(shown[at + 1]),
      ArrowUp: () => move(shown[at - 1]),
      Home: () => move(shown[0]),
      End: () => move(shown[shown.length - 1]),
      ArrowRight: () => {
        if (row.last > here && free && !open.has(here)) { toggle(here); focus(); }
        else if (row.last > here && rows[shown[at + 1]]?.parent === here) move(shown[at + 1]);
      },
      ArrowLeft: () => {
        if (free && row.last > here && open.has(here)) { toggle(here); focus(); }
        else if (row.parent >= 0) move(row.parent);
      },
      Enter: () => { if (row.last > here && free) { toggle(here); focus(); } },
      " ": () => { if (row.last > here && free) { toggle(here); focus(); } },
      "/": () => search.focus(),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });
  search.addEventListener("input", () => { model.set("query", search.value); model.save_changes(); });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && search.value) { search.value = ""; model.set("query", ""); model.save_changes(); }
    if (event.key === "ArrowDown") { event.preventDefault(); focus(); }
    event.stopPropagation();
  });
  box.addEventListener("change", () => { model.set("only_path", box.checked); model.save_changes(); });

  const names = ["change:rows", "change:title", "change:words"];
  names.forEach((name) => model.on(name, load));
  const drawn = ["change:query", "change:only_path"];
  drawn.forEach((name) => model.on(name, draw));
  load();
  return () => { names.forEach((name) => model.off(name, load)); drawn.forEach((name) => model.off(name, draw)); };
}
export default { render };
