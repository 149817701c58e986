// The lists of studies: refresh (the worklist only) and operation by keys.
"use strict";
const rows = () => [...document.querySelectorAll("#rows tbody tr[data-study]")];
let selected = null; // a Study Instance UID: the selection survives a refresh of the list

function showSelection() {
  for (const row of rows()) {
    const isSelected = row.dataset.study === selected;
    row.classList.toggle("selected", isSelected);
    if (isSelected) row.scrollIntoView({ block: "nearest" });
  }
}

function move(steps) {
  const all = rows();
  const index = all.findIndex((row) => row.dataset.study === selected);
  const next = all[index < 0 ? 0 : Math.min(all.length - 1, Math.max(0, index + steps))];
  if (next) { selected = next.dataset.study; showSelection(); }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea, button")) return;
  if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "/") document.querySelector("[data-key='/']")?.focus();
  else if (event.key === "Enter" && selected && !event.target.closest("a"))
    document.querySelector("tr.selected a")?.click();
  else return;
  event.preventDefault();
});

const live = document.getElementById("live");
if (live) {
  const refresh = async () => {
    if (document.hidden || live.contains(document.activeElement)) return;
    try {
      const response = await fetch(location.href, { headers: { "X-Renew": "1" } });
      if (response.status === 401) { location.reload(); return; }
      if (!response.ok) return;
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("live");
      if (fresh) { live.replaceChildren(...fresh.childNodes); showSelection(); }
    } catch { /* the network is unreachable; the next refresh tries again */ }
  };
  setInterval(refresh, 1000 * Number(live.dataset.every));
}
