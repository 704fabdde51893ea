// Two moments of one world, compared: as a table and as commands.
function render({ model, el }) {
  const root = make("div", "knl knl-w knl-diff");
  const bar = make("div", "knl-bar");
  const pick = (name, label) => {
    const box = make("label", "", label + " ");
    const select = make("select", `knl-pick-${name}`);
    model.get("labels").forEach((text, i) => { const option = make("option", "", text); option.value = i; select.append(option); });
    select.addEventListener("change", () => { model.set(name, Number(select.value)); model.save_changes(); });
    box.append(select);
    bar.append(box);
    return select;
  };
  const before = pick("before", "Before:");
  const after = pick("after", "After:");
  const commands = make("button", "knl-as", "");
  commands.type = "button";
  let shell = false;
  commands.addEventListener("click", () => { shell = !shell; draw(); });
  bar.append(commands);
  const summary = make("p", "knl-said");
  summary.setAttribute("aria-live", "polite");
  const body = make("div", "knl-body");
  const folded = make("details");
  const pre = make("pre");
  folded.append(make("summary", "", "As text"), pre);
  root.append(bar, summary, body, folded);
  el.append(root);

  function table(rows) {
    const made = make("table");
    let where = "";
    rows.forEach((row) => {
      if (row.where !== where) {
        where = row.where;
        const line = make("tr"), head = make("th", "", where);
        head.colSpan = 3;
        line.append(head);
        made.append(line);
      }
      const line = make("tr"), what = make("td");
      what.append(make("code", "", row.what));
      if (row.was) what.append(make("div", "", "was "), make("code", "", row.was));
      line.append(make("td", `knl-change-${row.word}`, `${row.sign} ${row.word}`), make("td", "", row.kind), what);
      made.append(line);
    });
    return made;
  }
  function script(rows) {
    const lines = [];
    let where = "";
    rows.filter((row) => row.command).forEach((row) => {
      if (row.where !== where) lines.push(`# in ${(where = row.where)}`);
      lines.push(row.command);
    });
    return make("pre", "", lines.join("\n") || "# no command makes these changes");
  }
  function draw() {
    const rows = model.get("rows");
    before.value = model.get("before");
    after.value = model.get("after");
    commands.textContent = shell ? "Show as a table" : "Show as commands";
    const counts = {};
    rows.forEach((row) => { counts[row.word] = (counts[row.word] || 0) + 1; });
    summary.textContent = rows.length ? Object.entries(counts).map(([word, n]) => `${n} ${word}`).join(", ") : "Nothing changed.";
    body.replaceChildren(rows.length ? (shell ? script(rows) : table(rows)) : "");
    pre.textContent = model.get("words");
  }
  const names = ["change:rows", "change:before", "change:after", "change:words"];
  names.forEach((name) => model.on(name, draw));
  draw();
  return () => names.forEach((name) => model.off(name, draw));
}
export default { render };
