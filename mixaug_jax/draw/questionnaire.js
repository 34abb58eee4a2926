"use strict";
// One participant: consent, instructions, one panel, a rating for each property, a file to save. Nothing is sent.
const main = document.querySelector("main");
const asked = new URLSearchParams(location.search);
const conditions = main.dataset.conditions.split(" ");
const participant = asked.get("p") || `anonymous-${Math.floor(Math.random() * 1e9)}`;

function hash(text) { // FNV-1a, 32 bits
  let value = 2166136261;
  for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 16777619) >>> 0;
  return value;
}

const wanted = asked.get("c");
const condition = conditions.includes(wanted) ? wanted : conditions[hash(participant) % conditions.length];
const steps = ["consent", "instructions", "panel", "done"];
const seconds = {};
let step = 0;
let shown = performance.now();

function show(number) {
  seconds[steps[step]] = (performance.now() - shown) / 1000;
  step = number;
  shown = performance.now();
  for (const name of steps) document.getElementById(name).hidden = name !== steps[step];
  scrollTo(0, 0);
}

for (const panel of document.querySelectorAll(".condition")) {
  if (panel.dataset.condition === condition) panel.hidden = false;
  else panel.remove();
}

// Properties in an order of each participant's own, so that none is always the first.
const form = document.getElementById("ratings");
const items = [...form.querySelectorAll("fieldset")];
items.sort((a, b) => hash(participant + a.dataset.item) - hash(participant + b.dataset.item));
for (const item of items) form.insertBefore(item, document.getElementById("missing"));

const agree = document.getElementById("agree");
const [go] = document.querySelectorAll("#consent [data-next]");
agree.addEventListener("change", () => { go.disabled = !agree.checked; });
for (const button of document.querySelectorAll("[data-next]")) {
  button.addEventListener("click", () => show(step + 1));
}

const answered = {};
form.addEventListener("change", (event) => {
  const item = event.target.closest("fieldset").dataset.item;
  answered[item] = (performance.now() - shown) / 1000;
});
form.noValidate = true;
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const data = new FormData(form);
  const open = items.filter((item) => !data.get(item.dataset.item) || !data.get(`${item.dataset.item}-confidence`));
  document.getElementById("missing").textContent = open.length ? `${open.length} of ${items.length} answers are missing.` : "";
  if (open.length) {
    open[0].querySelector("input").focus();
    return;
  }
  finish(data);
});

function quoted(value) {
  const text = String(value);
  // A spreadsheet would take such a text for a formula.
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function finish(data) {
  show(steps.length - 1);
  const check = items.find((item) => item.dataset.check);
  const attentive = data.get(check.dataset.item) === check.dataset.check ? 1 : 0;
  const header = ["participant", "condition", "version", "attribute", "position", "rating", "confidence",
    "attentive", "answered_after_s", "consent_s", "instructions_s", "panel_s"];
  const rows = items.filter((item) => item !== check).map((item) => {
    const name = item.dataset.item;
    return [participant, condition, main.dataset.version, name, items.indexOf(item) + 1, data.get(name),
      data.get(`${name}-confidence`), attentive, answered[name].toFixed(1), seconds.consent.toFixed(1),
      seconds.instructions.toFixed(1), seconds.panel.toFixed(1)];
  });
  const text = [header, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
  try {
    localStorage.setItem(`answers ${main.dataset.version} ${condition} ${participant}`, text);
  } catch {
    // Some browsers keep nothing of pages from a disk; the file is the answer.
  }
  const link = document.getElementById("download");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `answers-${condition}-${participant.replaceAll(/[^\w-]/g, "_")}.csv`;
}

show(0);
