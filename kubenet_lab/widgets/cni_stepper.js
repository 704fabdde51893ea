// A pod's start or end, step by step. The kernel sends all steps once; only the number of the step travels.
function render({ model, el }) {
  const root = make("div", "knl knl-w knl-cni");
  root.tabIndex = 0;
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", "How a pod gets its network, step by step. Arrow keys move.");
  root.dataset.lmSuppressShortcuts = "true";
  const head = make("strong", "knl-tree-title");
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
  button("← Back", "back", () => go(model.get("step") - 1));
  button("Forward →", "next", () => go(model.get("step") + 1));
  button("End", "last", () => go(model.get("rows").length - 1));
  const count = make("span", "knl-count");
  bar.append(count);
  const picture = make("div", "knl-picture");
  const below = make("div", "knl-below");
  const list = make("ol", "knl-steps");
  const card = make("div", "knl-card");
  below.append(list, card);
  const folded = make("details");
  const pre = make("pre");
  folded.append(make("summary", "", "Everything as text"), pre);
  root.append(head, bar, picture, below, folded);
  el.append(root);

  // `code` in backticks.
  function prose(text) {
    const made = make("p");
    text.split("`").forEach((part, i) => made.append(i % 2 ? make("code", "", part) : part));
    return made;
  }
  function go(n) {
    model.set("step", Math.max(0, Math.min(model.get("rows").length - 1, n)));
    model.save_changes();
  }
  function table(changes) {
    const made = make("table");
    let where = "";
    changes.forEach((row) => {
      if (row.where !== where) {
        where = row.where;
        const line = make("tr"), title = make("th", "", where);
        title.colSpan = 3;
        line.append(title);
        made.append(line);
      }
      const line = make("tr"), what = make("td");
      what.append(make("code", "", row.what));
      if (row.was) what.append(make("div", "", "was "), make("code", "", row.was));
      line.append(make("td", `knl-change-${row.word}`, `${row.sign} ${row.word}`), make("td", "knl-cni-kind", row.kind), what);
      made.append(line);
    });
    return made;
  }
  function drawList() {
    head.textContent = model.get("headline");
    pre.textContent = model.get("words");
    list.replaceChildren();
    model.get("rows").forEach((row, n) => {
      const item = make("li", "knl-item"), jump = make("button", "", "");
      jump.type = "button";
      jump.style.paddingLeft = `${8 + 14 * row.depth}px`;
      jump.append(make("span", "knl-where", `${row.actor}: `), `${row.failed ? "✕ " : ""}${row.title}`);
      jump.addEventListener("click", () => go(n));
      item.append(jump);
      list.append(item);
    });
    draw();
  }
  function draw() {
    const rows = model.get("rows"), n = Math.max(0, Math.min(rows.length - 1, model.get("step"))), row = rows[n];
    count.textContent = `Step ${n + 1} of ${rows.length}`;
    picture.replaceChildren(drawing(row.svg));
    list.querySelectorAll("button").forEach((jump, i) => {
      if (i === n) jump.setAttribute("aria-current", "step"); else jump.removeAttribute("aria-current");
      if (i === n) {
        const top = jump.offsetTop - list.offsetTop;
        if (top < list.scrollTop || top > list.scrollTop + list.clientHeight - 30) list.scrollTop = Math.max(0, top - list.clientHeight / 2);
      }
    });
    const said = make("div", "knl-sentence");
    said.setAttribute("aria-live", "polite");
    said.append(make("div", "knl-where", row.actor), make("h3", "", `${row.failed ? "✕ " : ""}${row.title}`), prose(row.told));
    card.replaceChildren(said);
    if (row.shell) card.append(make("div", "knl-label", row.changes.length ? "The same as commands" : "In full"), make("pre", "knl-cni-shell", row.shell));
    if (row.changes.length) card.append(make("div", "knl-label", "What changed"), table(row.changes));
    if (row.also.length) {
      const more = make("details");
      more.append(make("summary", "", `… and what the kernel did by itself (${row.also.length})`), table(row.also));
      card.append(more);
    }
  }
  root.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const inside = event.target !== root && !event.target.closest(".knl-steps");
    if (inside && event.key !== "Home" && event.key !== "End") { if (!move || event.target.tagName !== "BUTTON") return; }
    if (move) go(model.get("step") + move);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(model.get("rows").length - 1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  model.on("change:rows", drawList);
  model.on("change:step", draw);
  drawList();
  return () => { model.off("change:rows", drawList); model.off("change:step", draw); };
}
export default { render };
