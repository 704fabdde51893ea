// A matrix as the kernel drew it: choose a cell by click, Enter, or arrow keys; the choice is sent back.
function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "knl knl-w knl-matrix";
  const picture = document.createElement("div");
  picture.className = "knl-picture";
  const said = document.createElement("p");
  said.className = "knl-said";
  said.setAttribute("aria-live", "polite");
  const folded = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "The matrix in words";
  const words = document.createElement("pre");
  folded.append(summary, words);
  root.append(picture, said, folded);
  el.append(root);
  let hits = [];
  let frame = null;

  function mark() {
    const [door, place] = model.get("selected");
    if (frame) frame.remove();
    frame = null;
    said.textContent = `Click a cell to see ${model.get("gives")}; arrow keys move between cells.`;
    hits.forEach((hit) => {
      const is = hit.dataset.door === door && hit.dataset.place === place;
      hit.setAttribute("aria-pressed", String(is));
      if (!is) return;
      frame = hit.cloneNode();
      frame.removeAttribute("tabindex");
      frame.setAttribute("class", "sel");
      frame.setAttribute("pointer-events", "none");
      hit.parentNode.append(frame);
      said.textContent = `Shown below: ${hit.getAttribute("aria-label")}`;
    });
  }
  function choose(hit) {
    model.set("selected", [hit.dataset.door, hit.dataset.place]);
    model.save_changes();
  }
  // Some cells are not there (one's own row and column), so a neighbour is the next one that is.
  function beside(hit, [down, right]) {
    const rows = model.get("rows");
    const columns = model.get("columns");
    let row = rows.indexOf(hit.dataset.door) + down;
    let column = columns.indexOf(hit.dataset.place) + right;
    for (; row in rows && column in columns; row += down, column += right) {
      const next = hits.find((other) => other.dataset.door === rows[row] && other.dataset.place === columns[column]);
      if (next) return next;
    }
    return undefined;
  }
  function key(event, index) {
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (way === undefined && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    const next = way ? beside(hits[index], way) || hits[index] : hits[index];
    next.focus();
    choose(next);
  }
  function draw() {
    const svg = drawing(model.get("svg"));
    svg.setAttribute("role", "group");
    picture.replaceChildren(svg);
    words.textContent = model.get("words");
    hits = [...picture.querySelectorAll(".hit")];
    hits.forEach((hit, index) => {
      hit.setAttribute("tabindex", "0");
      hit.setAttribute("role", "button");
      hit.addEventListener("click", () => choose(hit));
      hit.addEventListener("keydown", (event) => key(event, index));
    });
    mark();
  }
  model.on("change:svg", draw);
  model.on("change:selected", mark);
  draw();
  return () => {
    model.off("change:svg", draw);
    model.off("change:selected", mark);
  };
}
export default { render };
