// On every screen: the viewer's times, the theme switch, questions before what cannot be undone.

import { localTimes, make, text } from "./base.js";

localTimes();

const root = document.documentElement;
const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const button = make("button", { class: "quiet", type: "button", "aria-label": text("theme.switch"), onclick: change });

function change() {
  root.dataset.theme = dark() ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  name();
  dispatchEvent(new Event("themechange"));
}

function name() {
  button.textContent = dark() ? `☾ ${text("theme.dark")}` : `☀ ${text("theme.light")}`;
}

name();
document.getElementById("theme-place")?.append(button);

for (const form of document.querySelectorAll("form[data-sure]"))
  form.addEventListener("submit", (event) => {
    if (!confirm(form.dataset.sure)) event.preventDefault();
  });

document.getElementById("problem")?.focus();
