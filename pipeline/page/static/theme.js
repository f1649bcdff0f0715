// Light or dark as this browser was told last; without that, as the system has it. Runs before the first paint.
const chosen = localStorage.getItem("theme");
if (chosen) document.documentElement.dataset.theme = chosen;
