// Helps the buyer: groups the digits, shows the brand of the card and input errors, and submits a form only once.
// Every page works without this file, and the server validates every form.
"use strict";

const BRANDS = [
  ["Visa", /^4/],
  ["Mastercard", /^(5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)/],
  ["Mir", /^220[0-4]/],
  ["Belkart", /^9112/],
  ["American Express", /^3[47]/],
  ["JCB", /^35(2[89]|[3-8])/],
  ["Diners Club", /^36/],
  ["UnionPay", /^62/],
  ["Discover", /^6011/],
  ["Maestro", /^(50|5[6-9]|6)/],
];

// Full-width characters, as East Asian keyboards write digits, in their ASCII forms.
const halfWidth = (text) =>
  text.replace(/\u3000/g, " ").replace(/[\uff01-\uff5e]/g, (wide) => String.fromCharCode(wide.charCodeAt(0) - 0xfee0));

const digitsOf = (text) => halfWidth(text).replace(/\D/g, "");

const brandOf = (digits) => (BRANDS.find(([, begins]) => begins.test(digits)) ?? [""])[0];

const grouped = (digits) =>
  brandOf(digits) === "American Express"
    ? digits.replace(/^(\d{4})(\d{1,6})?(\d{1,9})?.*$/, (_, ...parts) => parts.slice(0, 3).filter(Boolean).join(" "))
    : digits.replace(/(\d{4})(?=\d)/g, "$1 ");

// The check digit (Luhn): every second digit from the right counts twice.
function addsUp(digits) {
  const sum = [...digits].reverse().reduce((total, digit, place) => {
    const value = place % 2 ? 2 * digit : Number(digit);
    return total + (value > 9 ? value - 9 : value);
  }, 0);
  return sum % 10 === 0;
}

function yearOf(text) {
  const year = Number(text);
  return text.length === 2 ? 2000 + year : year;
}

// The error of a field: a key of the form's data attributes, or undefined.
const CHECKS = {
  number: (text) => {
    const digits = digitsOf(text);
    return /^[\d -]+$/.test(text) && /^\d{12,19}$/.test(digits) && addsUp(digits) ? "" : "number";
  },
  verification_value: (text) => (/^\d{3,4}$/.test(text) ? "" : "code"),
  exp_month: (text, form) => {
    if (!/^\d{1,2}$/.test(text) || Number(text) < 1 || Number(text) > 12) return "month";
    const year = halfWidth(form.elements.exp_year.value).trim();
    if (!/^(\d{2}|2\d{3})$/.test(year)) return "";
    // A day later than the end of the month, because it ends later in other time zones.
    return Date.UTC(yearOf(year), Number(text), 2) > Date.now() ? "" : "past";
  },
  exp_year: (text) => (/^(\d{2}|2\d{3})$/.test(text) ? "" : "year"),
  email: (text) => (/^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(text) ? "" : "email"),
};

function showError(form, field) {
  const text = halfWidth(field.value).trim();
  const key = text ? (CHECKS[field.name]?.(text, form) ?? "") : field.required ? "blank" : "";
  const line = document.getElementById(`${field.name}-error`);
  if (!line) return true;
  line.textContent = key ? form.dataset[key] : "";
  line.hidden = !key;
  if (key) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
  return !key;
}

function groupWhileTyping(field) {
  const caret = field.selectionStart ?? field.value.length;
  const before = digitsOf(field.value.slice(0, caret)).length;
  const digits = digitsOf(field.value).slice(0, 19);
  const text = grouped(digits);
  if (text !== field.value) {
    field.value = text;
    let place = 0;
    for (let seen = 0; seen < before && place < text.length; place += 1) if (text[place] !== " ") seen += 1;
    field.setSelectionRange(place, place);
  }
  const brand = brandOf(digits);
  const label = document.getElementById("brand");
  if (label.textContent !== brand) label.textContent = brand;
}

function helpWithCard(form) {
  form.noValidate = true; // the browser's own messages are in the language of the browser
  const { number, exp_month: month, exp_year: year } = form.elements;
  const fields = [...form.elements].filter((field) => field.matches("input:not([type=hidden]), select"));
  // An input method still composes the text of its keyboard: a change would disturb it.
  number.addEventListener("input", (event) => event.isComposing || groupWhileTyping(number));
  number.addEventListener("compositionend", () => groupWhileTyping(number));
  groupWhileTyping(number);
  for (const field of fields) {
    field.addEventListener("change", () => {
      showError(form, field);
      if (field === year && month.value) showError(form, month);
    });
    field.addEventListener("input", () => {
      if (field.getAttribute("aria-invalid")) showError(form, field);
    });
  }
  form.addEventListener("submit", (event) => {
    const wrong = fields.filter((field) => !showError(form, field));
    if (wrong.length) {
      event.preventDefault();
      event.stopImmediatePropagation();
      wrong[0].focus();
    }
  });
}

// Only the first press counts. Buttons are disabled after the browser has read the value of the pressed one.
function sendOnce(form) {
  let sent = false;
  const buttons = [...form.querySelectorAll("button")];
  form.addEventListener("submit", (event) => {
    if (sent) {
      event.preventDefault();
      return;
    }
    sent = true;
    setTimeout(() => {
      for (const button of buttons) {
        button.disabled = true;
        if (button.dataset.busy) {
          button.dataset.text = button.textContent;
          button.textContent = button.dataset.busy;
        }
      }
    });
  });
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    sent = false;
    for (const button of buttons) {
      button.disabled = false;
      if (button.dataset.text) button.textContent = button.dataset.text;
    }
  });
}

for (const form of document.querySelectorAll("form[data-once]")) {
  if (form.elements.number) helpWithCard(form);
  sendOnce(form);
}
document.getElementById("summary")?.focus();

const waiting = document.querySelector("[data-refresh]");
if (waiting) setTimeout(() => location.reload(), 1000 * waiting.dataset.refresh);

// Return to the merchant after a countdown. It stops when the buyer uses the page.
const back = document.querySelector("a[data-return]");
if (back) {
  const soon = document.getElementById("back-soon");
  const timer = setTimeout(() => location.replace(back.href), 1000 * back.dataset.return);
  soon.hidden = false;
  for (const sign of ["keydown", "pointerdown", "wheel"]) {
    addEventListener(
      sign,
      () => {
        clearTimeout(timer);
        soon.hidden = true;
      },
      { once: true, passive: true },
    );
  }
}
