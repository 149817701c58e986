// Uploads: files and folders dropped on the form, upload progress, then the progress of the analysis.
"use strict";
const form = document.getElementById("upload");
if (form) prepareForm();
if (document.getElementById("live")?.dataset.inProgress) setTimeout(refresh, 1000);

function prepareForm() {
  const status = document.getElementById("status"), progress = document.getElementById("progress"), stop = document.getElementById("stop");
  const [files, folder] = form.querySelectorAll("input[type=file]");
  const chosenFiles = () => [...files.files, ...folder.files];
  const mib = (bytes) => (bytes / 1048576).toFixed(1);
  const showChosen = () => {
    const all = chosenFiles();
    status.textContent = all.length ? `${all.length} ${all.length === 1 ? "file" : "files"}, ${mib(all.reduce((sum, f) => sum + f.size, 0))} MiB.` : "";
  };
  for (const input of [files, folder]) input.addEventListener("change", showChosen);

  for (const kind of ["dragenter", "dragover"]) form.addEventListener(kind, (event) => { event.preventDefault(); form.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) form.addEventListener(kind, () => form.classList.remove("over"));
  form.addEventListener("drop", async (event) => {
    event.preventDefault();
    const dropped = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry() ?? item.getAsFile()).filter(Boolean);
    const transfer = new DataTransfer();
    try { for (const item of dropped) if (item instanceof File) transfer.items.add(item); else await addEntry(item, transfer); }
    catch { status.textContent = "The dropped files cannot be read; choose them instead."; return; }
    files.files = transfer.files;
    folder.value = "";
    showChosen();
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!chosenFiles().length) { status.textContent = "Choose files first."; return; }
    if (chosenFiles().reduce((sum, f) => sum + f.size, 0) > Number(form.dataset.maxBytes)) { status.textContent = "The files are larger than an upload may be."; return; }
    const bar = progress.querySelector("progress"), button = form.querySelector("button");
    const request = new XMLHttpRequest();
    const end = (message) => { status.textContent = message; progress.hidden = stop.hidden = true; button.disabled = false; };
    request.open("POST", `${document.documentElement.dataset.root}/upload`);
    request.setRequestHeader("X-CSRF-Token", form.elements.csrf_token.value);
    request.responseType = "document";
    request.upload.addEventListener("progress", (event) => {
      bar.max = event.total; bar.value = event.loaded;
      status.textContent = event.loaded < event.total ? `${mib(event.loaded)} of ${mib(event.total)} MiB sent.` : "Upload complete.";
    });
    request.addEventListener("load", () => {
      if (request.status === 200) location.assign(request.responseURL);
      else end(request.response?.querySelector(".error")?.textContent ?? "The upload was refused.");
    });
    request.addEventListener("error", () => end("The connection was lost; try again."));
    request.addEventListener("abort", () => end("Stopped; nothing was kept."));
    stop.onclick = () => request.abort();
    request.send(new FormData(form));
    progress.hidden = stop.hidden = false;
    button.disabled = true;
  });
}

async function addEntry(entry, transfer) {
  if (entry.isFile) { transfer.items.add(await new Promise((resolve, reject) => entry.file(resolve, reject))); return; }
  const reader = entry.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return;
    for (const child of entries) await addEntry(child, transfer);
  }
}

async function refresh() {
  const live = document.getElementById("live");
  try {
    const response = await fetch(location.href, { headers: { "X-Renew": "1" } });
    if (!response.ok) { location.reload(); return; }
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("live");
    if (!fresh) { location.reload(); return; }
    if (fresh.innerHTML !== live.innerHTML) live.replaceChildren(...fresh.childNodes);
    if (!fresh.dataset.inProgress) { delete live.dataset.inProgress; return; }
  } catch { /* the network is unreachable; the next refresh tries again */ }
  setTimeout(refresh, 1000);
}
