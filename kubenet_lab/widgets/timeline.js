// A Service second by second: a clock over a picture that the kernel sent once.
const NS = "http://www.w3.org/2000/svg";
function render({ model, el }) {
  const root = make("div", "knl knl-w knl-clock");
  root.tabIndex = 0;
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", "A Service second by second. Arrow keys move the clock, space plays.");
  root.dataset.lmSuppressShortcuts = "true";
  const bar = make("div", "knl-bar");
  const play = make("button", "knl-play", "Play");
  play.type = "button";
  const slider = make("input", "knl-second");
  slider.type = "range";
  slider.min = 0;
  slider.setAttribute("aria-label", "Second");
  slider.style.flex = "1 1 240px";
  const count = make("span", "knl-count");
  bar.append(play, slider, count);
  const picture = make("div", "knl-picture");
  const said = make("p", "knl-said");
  said.setAttribute("aria-live", "polite");
  said.style.color = "inherit";
  const table = make("table");
  const felt = make("p", "knl-felt");
  const folded = make("details");
  const pre = make("pre");
  folded.append(make("summary", "", "Everything as text"), pre);
  root.append(bar, picture, said, table, felt, folded);
  el.append(root);

  let cursor, timer = 0;
  const last = () => model.get("rows").length - 1;
  function go(n) {
    model.set("second", Math.max(0, Math.min(last(), n)));
    model.save_changes();
  }
  function drawPicture() {
    const svg = drawing(model.get("svg"));
    cursor = document.createElementNS(NS, "rect");
    cursor.setAttribute("class", "sel");
    cursor.setAttribute("rx", 4);
    cursor.style.pointerEvents = "none";
    svg.append(cursor);
    svg.querySelectorAll(".hit").forEach((hit) => hit.addEventListener("click", () => go(Number(hit.dataset.second))));
    picture.replaceChildren(svg);
    slider.max = last();
    pre.textContent = model.get("words");
    draw();
  }
  function draw() {
    const n = model.get("second"), row = model.get("rows")[n], place = model.get("place");
    if (!row) return;
    const hit = picture.querySelector(`.hit[data-second="${n}"]`);
    cursor.setAttribute("x", place.left + n * place.wide);
    cursor.setAttribute("width", place.wide);
    cursor.setAttribute("y", hit.getAttribute("y"));
    cursor.setAttribute("height", hit.getAttribute("height"));
    slider.value = n;
    slider.setAttribute("aria-valuetext", `second ${row.second}`);
    count.textContent = `second ${row.second} of ${model.get("rows")[last()].second}`;
    const calls = Object.entries(row.calls).map(([what, times]) => `${times} ${what}`).join(", ");
    said.replaceChildren(make("b", "", `Second ${row.second}`), row.did ? `: ${row.did}.` : ".");
    said.append(row.late ? ` The rules on ${row.node} do not say what the slice says: they are late.` : " Slice and rules agree.");
    if (row.dead.length) said.append(` Nobody answers at ${row.dead.join(", ")}.`);
    table.replaceChildren();
    const head = make("tr");
    ["pod", "state", "address", "image", "in the slice", `in ${row.node}'s rules`].forEach((word) => {
      const cell = make("th", "", word);
      cell.style.whiteSpace = "nowrap";
      head.append(cell);
    });
    table.append(head);
    row.pods.forEach((pod) => {
      const line = make("tr");
      [pod.name, pod.state, pod.ip, pod.image, pod.slice, pod.rules].forEach((word) => line.append(make("td", "", word)));
      table.append(line);
    });
    row.gone.forEach((address) => {
      const line = make("tr");
      ["–", "not behind the Service now", address, "", "not in it", "named"].forEach((word) => line.append(make("td", "", word)));
      table.append(line);
    });
    felt.replaceChildren(make("b", "", row.lost ? `✕ ${row.lost} calls not answered` : "✓ every call answered"), calls ? ` (${calls})` : "");
  }
  function run() {
    clearInterval(timer);
    const on = model.get("playing");
    play.textContent = on ? "Pause" : "Play";
    if (!on) return;
    if (model.get("second") >= last()) go(0);
    timer = setInterval(() => {
      if (model.get("second") >= last()) { model.set("playing", false); model.save_changes(); return; }
      go(model.get("second") + 1);
    }, model.get("pace"));
  }
  const toggle = () => { model.set("playing", !model.get("playing")); model.save_changes(); };
  play.addEventListener("click", toggle);
  slider.addEventListener("input", () => go(Number(slider.value)));
  root.addEventListener("keydown", (event) => {
    if (event.target === slider || event.target.tagName === "SUMMARY") return;
    const act = { ArrowRight: () => go(model.get("second") + 1), ArrowLeft: () => go(model.get("second") - 1), Home: () => go(0), End: () => go(last()), " ": event.target === play ? null : toggle }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  model.on("change:svg", drawPicture);
  model.on("change:second", draw);
  model.on("change:playing", run);
  drawPicture();
  run();
  return () => {
    clearInterval(timer);
    model.off("change:svg", drawPicture);
    model.off("change:second", draw);
    model.off("change:playing", run);
  };
}
export default { render };
