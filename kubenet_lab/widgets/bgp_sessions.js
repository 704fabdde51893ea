// BGP sessions on the map the kernel drew: what is picked and what is pressed goes to the kernel, which answers anew.
function render({ model, el }) {
  const root = make("div", "knl knl-w knl-bgp");
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", "BGP sessions: pick one, cut it, let time pass.");
  root.dataset.lmSuppressShortcuts = "true";
  const button = (bar, label, name, act, value) => {
    const made = make("button", `knl-${name}`, label);
    made.type = "button";
    made.addEventListener("click", () => model.send({ act, value }));
    bar.append(made);
    return made;
  };
  const time = make("div", "knl-bar");
  time.setAttribute("role", "toolbar");
  time.setAttribute("aria-label", "Time");
  const clock = make("span", "knl-count");
  time.append(clock);
  button(time, "+ 10 s", "wait10", "wait", 10);
  button(time, "+ 60 s", "wait60", "wait", 60);
  button(time, "Until something happens", "next", "next");
  const picture = make("div", "knl-picture");
  const bar = make("div", "knl-bar");
  bar.setAttribute("role", "toolbar");
  bar.setAttribute("aria-label", "The picked session");
  const list = make("select", "knl-session");
  list.setAttribute("aria-label", "Session");
  list.addEventListener("change", () => pick(list.value));
  const acts = make("span", "knl-bgp-acts");
  bar.append(list, acts);
  const card = make("div", "knl-card");
  const felt = make("div", "knl-felt");
  felt.setAttribute("aria-live", "polite");
  const log = make("ol", "knl-bgp-log");
  log.setAttribute("aria-live", "polite");
  const folded = make("details");
  const pre = make("pre");
  folded.append(make("summary", "", "Everything as text"), pre);
  root.append(time, picture, bar, card, felt, make("div", "knl-label", "What happened"), log, folded);
  el.append(root);

  function pick(key) {
    model.set("picked", key);
    model.save_changes();
  }
  function draw() {
    const svg = drawing(model.get("svg"));
    svg.setAttribute("role", "group");
    svg.querySelectorAll(".hit").forEach((hit) => {
      const key = hit.dataset.session;
      if (!key) { hit.remove(); return; }
      hit.setAttribute("tabindex", "0");
      hit.setAttribute("role", "button");
      hit.setAttribute("aria-pressed", String(key === model.get("picked")));
      hit.addEventListener("click", () => pick(key));
      hit.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        pick(key);
      });
    });
    picture.replaceChildren(svg);
    clock.textContent = `Clock: ${model.get("clock")}`;
    pre.textContent = model.get("words");
    const focused = document.activeElement && acts.contains(document.activeElement) ? document.activeElement.className : "";
    list.replaceChildren(...model.get("sessions").map((one) => {
      const made = make("option", "", `${one.label}: ${one.state}`);
      made.value = one.key;
      made.selected = one.key === model.get("picked");
      return made;
    }));
    const detail = model.get("detail");
    acts.replaceChildren();
    if (detail.cut) button(acts, "Let it through again", "mend", "mend"); else button(acts, "Cut it with a firewall", "cut", "cut");
    detail.speakers.forEach((who) => {
      if (who.runs) {
        button(acts, `Stop ${who.name}'s BIRD`, `stop-${who.name}`, "stop", who.name);
        button(acts, `Kill ${who.name}'s BIRD`, `kill-${who.name}`, "kill", who.name);
      } else button(acts, `Start ${who.name}'s BIRD`, `start-${who.name}`, "start", who.name);
    });
    if (focused) (acts.getElementsByClassName(focused)[0] || acts.firstChild).focus();
    const table = make("table");
    const head = make("tr");
    head.append(make("th", ""), ...detail.heads.map((text) => make("th", "", text)));
    table.append(head, ...detail.rows.map((row) => {
      const line = make("tr");
      row.forEach((text, n) => line.append(make(n ? "td" : "th", "", text)));
      return line;
    }));
    card.replaceChildren(make("h3", "knl-bgp-title", detail.title));
    if (detail.rows.length) card.append(table);
    felt.replaceChildren(...model.get("felt").map((one) => {
      const line = make("p", one.good ? "knl-banner knl-good" : "knl-banner knl-bad");
      line.append(make("b", "", `${one.good ? "✓" : "✕"} ${one.label}: ${one.verdict}`), one.why ? ` (${one.why})` : "");
      return line;
    }));
    log.replaceChildren(...model.get("history").map((one) => {
      const line = make("li");
      line.append(make("b", "", one.at), ` ${one.what}`);
      return line;
    }));
    if (!model.get("history").length) log.append(make("li", "", "Nothing yet: the sessions only keep alive."));
    log.scrollTop = log.scrollHeight;
  }
  const watched = ["svg", "sessions", "detail", "history", "felt", "clock", "words", "picked"];
  let due = 0;
  const later = () => { cancelAnimationFrame(due); due = requestAnimationFrame(draw); };
  watched.forEach((name) => model.on(`change:${name}`, later));
  draw();
  return () => {
    cancelAnimationFrame(due);
    watched.forEach((name) => model.off(`change:${name}`, later));
  };
}
export default { render };
