// Sorting and filtering of the tables on a page; without it they are plain tables.
"use strict";

for (const grid of document.querySelectorAll(".grid")) {
  const body = grid.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...grid.querySelectorAll("th")];
  const filters = [...grid.querySelectorAll("select[data-facet]")];
  const search = grid.querySelector("input[type=search]");
  const count = grid.querySelector("output");

  // Numbers before words; what was not run comes last in both directions.
  function compare(a, b, column, down) {
    const [x, y] = [a.cells[column], b.cells[column]];
    const [m, n] = [x.dataset.key, y.dataset.key];
    if (m !== undefined && n !== undefined) return down ? n - m : m - n;
    if (m !== undefined || n !== undefined) return m !== undefined ? -1 : 1;
    const order = x.textContent.trim().localeCompare(y.textContent.trim(), "en", { numeric: true });
    return down ? -order : order;
  }

  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const numbers = rows.some((row) => row.cells[column].dataset.key !== undefined);
    const before = head.getAttribute("aria-sort");
    const down = before === "none" ? numbers : before === "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...rows].sort((a, b) => compare(a, b, column, down)));
  }));

  function passes(row) {
    const words = search.value.trim().toLowerCase();
    if (words && !row.textContent.toLowerCase().includes(words)) return false;
    return filters.every((select) => {
      const value = row.getAttribute(`data-facet-${select.dataset.facet}`);
      if (select.value === "") return true;
      if (select.hasAttribute("data-most")) return value !== "" && Number(value) <= Number(select.value);
      return value === select.value;
    });
  }

  function filter() {
    rows.forEach((row) => { row.hidden = !passes(row); });
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  }

  filters.forEach((select) => select.addEventListener("change", filter));
  if (search) {
    search.addEventListener("input", filter);
    grid.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  }
}
