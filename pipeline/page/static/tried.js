// The numbers of a watch's form, saved or not: what "Try it" tries.

/** Rules that may be tried, and are numbers of the form. */
export const TRIED = ["open_at", "clear_at", "hold_s", "absent_s", "cooldown_s", "max_per_hour", "update_every_s"];
export const form = document.querySelector("form.entry");

/** A number of the form, null where it is empty. @param {string} name */
export const value = (name) => (form.elements[name]?.value.trim() ? Number(form.elements[name].value.replace(",", ".")) : null);

export const pair = () => [0, 1].map((i) => Number(form.elements[`confirm.${i}`]?.value) || 1);
