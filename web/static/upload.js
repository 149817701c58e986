// Uploads: files and folders dropped on the form, how much is sent, and then how far the reading is.
"use strict";
const form = document.getElementById("upload");
if (form) offer();
if (document.getElementById("live")?.dataset.going) setTimeout(renew, 1000);

function offer() {
  const said = document.getElementById("said"), sent = document.getElementById("sent"), stop = document.getElementById("stop");
  const [files, folder] = form.querySelectorAll("input[type=file]");
  const chosen = () => [...files.files, ...folder.files];
  const mib = (bytes) => (bytes / 1048576).toFixed(1);
  const tell = () => {
    const all = chosen();
    said.textContent = all.length ? `${all.length} ${all.length === 1 ? "file" : "files"}, ${mib(all.reduce((sum, f) => sum + f.size, 0))} MiB.` : "";
  };
  for (const input of [files, folder]) input.addEventListener("change", tell);

  for (const kind of ["dragenter", "dragover"]) form.addEventListener(kind, (event) => { event.preventDefault(); form.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) form.addEventListener(kind, () => form.classList.remove("over"));
  form.addEventListener("drop", async (event) => {
    event.preventDefault();
    const dropped = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry() ?? item.getAsFile()).filter(Boolean);
    const held = new DataTransfer();
    try { for (const one of dropped) if (one instanceof File) held.items.add(one); else await gather(one, held); }
    catch { said.textContent = "What was dropped cannot be read; choose the files instead."; return; }
    files.files = held.files;
    folder.value = "";
    tell();
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!chosen().length) { said.textContent = "Choose files first."; return; }
    if (chosen().reduce((sum, f) => sum + f.size, 0) > Number(form.dataset.most)) { said.textContent = "That is more than may be uploaded."; return; }
    const bar = sent.querySelector("progress"), button = form.querySelector("button");
    const request = new XMLHttpRequest();
    const ended = (words) => { said.textContent = words; sent.hidden = stop.hidden = true; button.disabled = false; };
    request.open("POST", "/upload");
    request.setRequestHeader("X-CSRF-Token", form.elements.csrf_token.value);
    request.responseType = "document";
    request.upload.addEventListener("progress", (now) => {
      bar.max = now.total; bar.value = now.loaded;
      said.textContent = now.loaded < now.total ? `${mib(now.loaded)} of ${mib(now.total)} MiB sent.` : "All is sent.";
    });
    request.addEventListener("load", () => {
      if (request.status === 200) location.assign(request.responseURL);
      else ended(request.response?.querySelector(".wrong")?.textContent ?? "It was not taken.");
    });
    request.addEventListener("error", () => ended("The connection was lost; try again."));
    request.addEventListener("abort", () => ended("Stopped; nothing of it was kept."));
    stop.onclick = () => request.abort();
    request.send(new FormData(form));
    sent.hidden = stop.hidden = false;
    button.disabled = true;
  });
}

async function gather(entry, held) {
  if (entry.isFile) { held.items.add(await new Promise((done, failed) => entry.file(done, failed))); return; }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const inner of some) await gather(inner, held);
  }
}

async function renew() {
  const live = document.getElementById("live");
  try {
    const answer = await fetch(location.href, { headers: { "X-Renew": "1" } });
    if (!answer.ok) { location.reload(); return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
    if (!fresh) { location.reload(); return; }
    if (fresh.innerHTML !== live.innerHTML) live.replaceChildren(...fresh.childNodes);
    if (!fresh.dataset.going) { delete live.dataset.going; return; }
  } catch { /* the network is away; the next round tries again */ }
  setTimeout(renew, 1000);
}
