// The worklist: renews itself, and goes by keys.
"use strict";
const rows = () => [...document.querySelectorAll("#rows tbody tr[data-study]")];
let chosen = null; // a Study Instance UID, so that it stays chosen when the list is renewed

function show() {
  for (const row of rows()) {
    const here = row.dataset.study === chosen;
    row.classList.toggle("here", here);
    if (here) row.scrollIntoView({ block: "nearest" });
  }
}

function go(by) {
  const all = rows();
  const at = all.findIndex((row) => row.dataset.study === chosen);
  const next = all[at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + by))];
  if (next) { chosen = next.dataset.study; show(); }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea, button")) return;
  if (event.key === "j") go(1);
  else if (event.key === "k") go(-1);
  else if (event.key === "/") document.querySelector("[data-key='/']")?.focus();
  else if (event.key === "Enter" && chosen && !event.target.closest("a"))
    document.querySelector("tr.here a")?.click();
  else return;
  event.preventDefault();
});

const live = document.getElementById("live");
if (live) {
  const renew = async () => {
    if (document.hidden || live.contains(document.activeElement)) return;
    try {
      const answer = await fetch(location.href, { headers: { "X-Renew": "1" } });
      if (answer.status === 401) { location.reload(); return; }
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
      if (fresh) { live.replaceChildren(...fresh.childNodes); show(); }
    } catch { /* the network is away; the next round tries again */ }
  };
  setInterval(renew, 1000 * Number(live.dataset.every));
}
