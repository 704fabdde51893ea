// The map as the kernel drew it; clicks and Enter select, the choice is the only thing sent back.
function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "knl knl-w";
  const picture = document.createElement("div");
  picture.className = "knl-picture";
  const said = document.createElement("p");
  said.className = "knl-said";
  said.setAttribute("aria-live", "polite");
  const folded = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "The map in words";
  const words = document.createElement("pre");
  folded.append(summary, words);
  root.append(picture, said, folded);
  el.append(root);

  const keyOf = (hit) => `${hit.dataset.netns}#${hit.dataset.link}`;
  let frame = null;

  function mark() {
    const chosen = model.get("selected");
    if (frame) frame.remove();
    frame = null;
    said.textContent = "Click a thing on the map, or reach it with Tab and press Enter.";
    picture.querySelectorAll(".hit").forEach((hit) => {
      const is = keyOf(hit) === chosen;
      hit.setAttribute("aria-pressed", String(is));
      if (!is) return;
      frame = hit.cloneNode();
      frame.removeAttribute("tabindex");
      frame.setAttribute("class", "sel");
      frame.setAttribute("pointer-events", "none");
      hit.parentNode.append(frame);
      said.textContent = `Selected: ${hit.getAttribute("aria-label")}`;
    });
  }
  function choose(hit) {
    const name = keyOf(hit);
    model.set("selected", model.get("selected") === name ? "" : name);
    model.save_changes();
  }
  function draw() {
    const svg = drawing(model.get("svg"));
    svg.setAttribute("role", "group");
    picture.replaceChildren(svg);
    words.textContent = model.get("words");
    picture.querySelectorAll(".hit").forEach((hit) => {
      hit.setAttribute("tabindex", "0");
      hit.setAttribute("role", "button");
      const tip = document.createElementNS("http://www.w3.org/2000/svg", "title");
      tip.textContent = hit.getAttribute("aria-label");
      hit.append(tip);
      hit.addEventListener("click", () => choose(hit));
      hit.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        event.stopPropagation();
        choose(hit);
      });
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
