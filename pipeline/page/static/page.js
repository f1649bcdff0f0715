// On every screen: the viewer's times, the theme switch, questions before what cannot be undone.

import { link, localTimes, make, text } from "./base.js";

localTimes();

const root = document.documentElement;
const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const button = make("button", { class: "quiet", type: "button", "aria-label": text("theme.switch"), onclick: change });

function change() {
  root.dataset.theme = dark() ? "light" : "dark";
  document.cookie = `theme=${root.dataset.theme}; path=${new URL(link("")).pathname}; max-age=31536000; samesite=lax`;
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

/** @param {Date} at as an input of a local time takes it */
const asLocal = (at) => new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);

// Times are typed in the viewer's zone and sent in UTC; without scripts they are UTC from the first.
for (const form of document.querySelectorAll("form[data-utc]")) {
  const inputs = [...form.querySelectorAll('input[type="datetime-local"]')];
  for (const label of form.querySelectorAll("[data-local]")) label.textContent = label.dataset.local;
  for (const input of inputs) if (input.value) input.value = asLocal(new Date(`${input.value}Z`));
  form.addEventListener("formdata", (event) => {
    for (const { name, value } of inputs) if (value) event.formData.set(name, new Date(value).toISOString());
  });
}

document.getElementById("problem")?.focus();
