// Answers to choose one from: native radio buttons in one group, usable by arrow keys in JupyterLab's command mode too.
let groups = 0;

function render({ model, el }) {
  const name = `knl-choices-${++groups}`;
  const set = document.createElement("fieldset");
  set.className = "knl-choices";
  const legend = document.createElement("legend");
  legend.textContent = model.get("label");
  set.append(legend);
  const inputs = model.get("options").map(([key, html]) => {
    const label = document.createElement("label");
    const input = document.createElement("input");
    const text = document.createElement("span");
    input.type = "radio";
    input.name = name;
    input.value = key;
    text.append(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
    input.addEventListener("change", () => choose(input));
    label.append(input, text);
    set.append(label);
    return input;
  });
  const choose = (input) => {
    input.checked = true;
    model.set("value", input.value);
    model.save_changes();
  };
  set.addEventListener("keydown", (event) => {
    const here = inputs.indexOf(document.activeElement);
    const way = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (here < 0 || (!way && event.key !== " ")) return;
    event.preventDefault();
    event.stopPropagation();
    const next = inputs[(here + (way || 0) + inputs.length) % inputs.length];
    next.focus();
    choose(next);
  });
  const draw = () => inputs.forEach((input) => { input.checked = input.value === model.get("value"); });
  model.on("change:value", draw);
  draw();
  el.append(set);
  return () => model.off("change:value", draw);
}

export default { render };
