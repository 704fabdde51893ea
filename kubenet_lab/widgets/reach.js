// Who may talk to whom, as the kernel drew it: choose a cell by click, Enter, or arrow keys; the choice is sent back.
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
    said.textContent = "Click a cell to see which policy and rule decide it; arrow keys move between cells.";
    hits.forEach((hit) => {
      const is = hit.dataset.door === door && hit.dataset.place === place;
      hit.setAttribute("aria-pressed", String(is));
      if (!is) return;
      frame = hit.cloneNode();
      frame.removeAttribute("tabindex");
      frame.setAttribute("class", "sel");
      frame.setAttribute("pointer-events", "none");
      hit.parentNode.append(frame);
      said.textContent = `Explained below: ${hit.getAttribute("aria-label")}`;
    });
  }
  function choose(hit) {
    model.set("selected", [hit.dataset.door, hit.dataset.place]);
    model.save_changes();
  }
  // Cells of the diagonal are not there, so a neighbour is looked up by its row and column.
  function beside(hit, [down, right]) {
    const names = model.get("names");
    let row = names.indexOf(hit.dataset.door);
    let column = names.indexOf(hit.dataset.place);
    do {
      row += down;
      column += right;
    } while (row === column && row >= 0 && row < names.length);
    return hits.find((other) => other.dataset.door === names[row] && other.dataset.place === names[column]);
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
    const svg = new DOMParser().parseFromString(model.get("svg"), "image/svg+xml").documentElement;
    svg.setAttribute("role", "group");
    picture.replaceChildren(document.importNode(svg, true));
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
