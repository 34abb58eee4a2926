"use strict";
// Sorting and copying of tables, and unfolded settings in print; without this script the page only loses these.

const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

function sortValue(row, column) {
  const raw = row.cells[column].dataset.value;
  return NUMBER.test(raw) ? Number(raw) : raw;
}

// Numbers before words, both in order; what is missing stays last in either direction.
function compare(a, b, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  if (typeof a !== typeof b) return typeof a === "number" ? -direction : direction;
  if (typeof a === "number") return direction * (a - b);
  return direction * a.localeCompare(b, undefined, { numeric: true });
}

function sortBy(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const column = header.cellIndex;
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const rows = [...body.rows].map((row) => [sortValue(row, column), row]);
  rows.sort((a, b) => compare(a[0], b[0], ascending ? 1 : -1));
  body.append(...rows.map(([, row]) => row));
}

function shown(table) {
  return [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
}

function asCsv(table) {
  const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = shown(table).map((row) => row.map((text) => quote(text === "–" ? "" : text)));
  return rows.map((row) => row.join(",") + "\n").join("");
}

const LATEX = {
  "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
  "–": "--", "−": "$-$", "±": "$\\pm$", "×": "$\\times$", ">": "$>$", "<": "$<$",
};

function asLatex(table) {
  const escape = (text) =>
    text.replace(/[\\~^–−±×<>]|[&%$#_{}]/g, (sign) => LATEX[sign] ?? "\\" + sign);
  const [head, ...body] = shown(table).map((row) => row.map(escape).join(" & ") + " \\\\\n");
  const align = (cell) => (cell.classList.contains("number") ? "r" : "l");
  const columns = [...table.tHead.rows[0].cells].map(align).join("");
  return (
    `\\begin{tabular}{${columns}}\n\\toprule\n${head}\\midrule\n${body.join("")}` +
    "\\bottomrule\n\\end{tabular}\n"
  );
}

// Pages from a disk may have no clipboard to write to; an invisible text box is the older way.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = document.createElement("textarea");
    box.value = text;
    box.className = "unseen";
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }
}

const FORMATS = {
  csv: (part) => asCsv(part.querySelector("table")),
  latex: (part) => asLatex(part.querySelector("table")),
  text: (part) => part.querySelector("pre").textContent,
};

async function copyPart(button) {
  const part = button.closest("figure, .copied");
  const done = await copy(FORMATS[button.dataset.copy](part));
  const status = part.querySelector("[role=status]");
  status.textContent = done ? "copied" : "could not be copied";
  setTimeout(() => (status.textContent = ""), 2000);
}

// The picture that the page shows, as a file.
function save(button) {
  const link = document.createElement("a");
  link.href = button.closest("figure").querySelector("img").src;
  link.download = button.dataset.save;
  link.click();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.copy) copyPart(button);
  else if (button?.dataset.save) save(button);
  else if (button?.parentElement.tagName === "TH") sortBy(button.parentElement);
});

const folded = () => document.querySelectorAll("details:not(.long)");
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...folded()].filter((details) => !details.open);
  for (const details of closed) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
});
