"use strict";
// What a page of a record does by itself: it does not come back out of the browser's memory, says when it was printed,
// and, where it stands for something that grows, looks for changes while it is looked at.
(() => {
const $ = (id) => document.getElementById(id), root = document.documentElement, main = $("content");
const sessionForm = (page = document) => page.querySelector("form.session");

// --- The back button: a browser that keeps a left page in memory must ask again before it shows it.
addEventListener("pagehide", () => { if (sessionForm()) root.hidden = true; });
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

// --- Moments, in the page's language and the record's zone
const place = $("sheet")?.dataset;
const language = `${root.lang === "en" ? "en-150" : root.lang}-u-nu-latn`;
const text = (at, how) => new Intl.DateTimeFormat(language, { timeZone: place.zone, ...how }).format(at);
const clock = (at) => `${text(at, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" })} ${place.zoneName}`;
const day = (at) => text(at, { day: "numeric", month: "long", year: "numeric" });
const say = (words, at) => words.replace("{day}", day(at)).replace("{time}", clock(at));

if (place) addEventListener("beforeprint", () => { $("sheet-made").textContent = say(place.printed, new Date()); });

// --- Copying: the plain text of what is set in groups to be read
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.nextElementSibling.textContent = button.dataset.copied;
  });
}

// --- Changes
const updates = $("updates");
if (!updates || !place) return;
const EVERY = 45_000, QUIET = 60_000, PAUSED = "shared-record:paused";
const words = updates.dataset, button = $("updates-pause"), line = $("updates-line"), status = $("updates-status");
let tag = words.tag, timer = 0, looked = Date.now(), told = 0, owed = false, over = false, paused = recall();

function recall() {
  try { return sessionStorage.getItem(PAUSED) === "1"; } catch { return false; }
}
function remember() {
  try { if (paused) sessionStorage.setItem(PAUSED, "1"); else sessionStorage.removeItem(PAUSED); } catch { /* for this page only */ }
}
function plan() {
  clearTimeout(timer);
  if (!over && !paused && !document.hidden) timer = setTimeout(look, Math.max(0, looked + EVERY - Date.now()));
}
function describe() {
  button.textContent = paused ? words.resume : words.pause;
  if (paused) line.textContent = words.paused;
}
// One announcement for a change, and one a minute at most; one that has to wait is made up for at the next look.
function tell(now) {
  if (!owed || now - told < QUIET) return;
  [owed, told] = [false, now];
  status.textContent = say(words.changed, now);
}
// Whoever types, or has marked something, is not disturbed.
function isBusy() {
  const at = document.activeElement, marked = getSelection();
  return Boolean((main.contains(at) && at.closest("form")) || (marked && !marked.isCollapsed && main.contains(marked.anchorNode)));
}
const CONTROLS = "a, button, summary";
function show(fresh) {
  const open = [...main.querySelectorAll("details")].map((one) => one.open);
  const focus = [...main.querySelectorAll(CONTROLS)].indexOf(document.activeElement);
  for (const node of [...main.childNodes]) if (node !== updates) node.remove();
  for (const node of [...fresh.getElementById("content").childNodes]) if (node.id !== "updates") updates.before(document.adoptNode(node));
  main.querySelectorAll("details").forEach((one, index) => { one.open = open[index] ?? one.open; });
  if (focus >= 0 && document.activeElement === document.body) main.querySelectorAll(CONTROLS)[focus]?.focus({ preventScroll: true });
}
// The session ended, or the link: what it showed goes, and the way back in stays.
function close() {
  over = true;
  for (const node of [...main.childNodes]) if (node !== updates) node.remove();
  sessionForm()?.remove();
  $("updates-live").remove();
  const again = document.createElement("a");
  again.href = location.href;
  again.textContent = words.again;
  updates.append(again);
  status.textContent = words.closed;
}
function take(request) {
  const now = Date.now();
  if (request.status === 304) { line.textContent = say(words.looked, now); return; }
  if (request.status === 429 || request.status >= 500 || !request.status) return;
  // Only a page is parsed: the document of an empty answer is a complaint of the browser's, in a style of its own.
  const fresh = request.status === 200 ? request.response : null, next = fresh?.getElementById("updates");
  if (!next || (sessionForm() && !sessionForm(fresh))) { close(); return; }
  if (isBusy()) return;
  tag = next.dataset.tag;
  show(fresh);
  line.textContent = say(words.looked, now);
  owed = true;
}
function look() {
  const request = new XMLHttpRequest();
  request.open("GET", location.href);
  request.responseType = "document";
  request.timeout = 20_000;
  request.setRequestHeader("If-None-Match", tag);
  request.onload = () => take(request);
  request.onloadend = () => { looked = Date.now(); if (!over) tell(looked); plan(); };
  request.send();
}
button.addEventListener("click", () => { paused = !paused; remember(); describe(); looked = paused ? looked : 0; plan(); });
document.addEventListener("visibilitychange", plan);
describe();
updates.hidden = false;
plan();
})();
