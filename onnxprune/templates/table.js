"use strict";
// Sorts the table of weights by any heading and filters it by text.
(() => {
  const table = document.getElementById("table");
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];

  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      // Numbers fall first, for the largest weight is what one looks for; texts rise first.
      const numeric = !heading.classList.contains("text") && column > 0;
      const current = heading.getAttribute("aria-sort");
      const rising = current ? current === "descending" : !numeric;
      const key = (row) => row.cells[column].dataset.key;
      const compare = numeric
        ? (a, b) => Number(key(a)) - Number(key(b))
        : (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const sorted = [...rows].sort((a, b) => (rising ? compare(a, b) : compare(b, a)));
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      body.append(...sorted);
    });
  });

  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${rows.length} shown`;
  });
})();
