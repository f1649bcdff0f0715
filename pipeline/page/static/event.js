// One event: evidence that is gone is said to be; T and F label it.

for (const image of document.querySelectorAll("img[data-gone]")) {
  const gone = () => {
    image.hidden = true;
    document.getElementById(image.dataset.gone).hidden = false;
  };
  if (image.complete && !image.naturalWidth) gone();
  image.addEventListener("error", gone);
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
  const label = { t: "true", f: "false_alarm" }[event.key];
  if (label) document.querySelector(`#labels button[value="${label}"]`)?.click();
});
