"use strict";
// Checks what this server shows now, with the code of verify.html (`sharedRecord`), and compares it with what this
// browser was shown before. The memory stays in this browser: origin, size, root and note of the newest checkpoint that
// was good, and size and root of each period's record. Nothing of it is sent but sizes.
(() => {
for (const text of document.querySelectorAll(".without")) text.hidden = true;
if (!document.getElementById("live")) return;
const { check, policy, opened, node, b64, unb64, t, tn } = globalThis.sharedRecord;
const $ = (id) => document.getElementById(id), place = $("live").dataset;
const { lang } = document.documentElement, locale = `${lang === "en" ? "en-GB" : lang}-u-nu-latn`;
// A log that began anew is served below its number; what was shown of it before counts still.
const key = `shared-record:${place.log.replace(/\/[0-9]+$/, "")}`, KEPT = 24;
class Differs extends Error {}
class Unknown extends Error {}
const need = (ok, reason, Kind = Differs) => { if (!ok) throw new Kind(reason); };

// --- Reading
async function load(url) {
  let answer = null;
  try { answer = await fetch(url, { cache: "no-store", redirect: "error" }); } catch { /* below */ }
  need(answer, t("the server could not be reached"), Unknown);
  const text = await answer.text();
  if (answer.ok) return text;
  let error = {};
  try { ({ error } = JSON.parse(text)); } catch { /* not in the envelope */ }
  need(answer.status !== 401, t("the record is not open in this browser any more"), Unknown);
  throw Object.assign(new Unknown(error.message ? error.message.replace(/\.$/, "") : t("the server answered {status}", { status: answer.status })), { code: error.code });
}
async function json(url) {
  const text = await load(url);
  try { return JSON.parse(text); } catch { throw new Unknown(t("the server’s answer is not JSON")); }
}
const get = async (path) => (await json(path)).data;

// --- RFC 9162, section 2.1.4.2: whether the tree of n leaves with the root `now` begins with the one of m, `old`.
function continues(m, n, old, now, path) {
  if (!(m > 0 && m <= n) || !Array.isArray(path) || !path.every((hash) => /^[A-Za-z0-9+/]{43}=$/.test(hash))) return false;
  if (m === n) return old === now && !path.length;
  let f = m - 1, s = n - 1;
  const half = () => { f = Math.floor(f / 2); s = Math.floor(s / 2); };
  while (f % 2) half();
  const steps = (f ? path : [old, ...path]).map(unb64);
  if (!steps.length) return false;
  let [before, after] = [steps[0], steps[0]];
  for (const step of steps.slice(1)) {
    if (!s) return false;
    if (f % 2 || f === s) {
      before = node(step, before); after = node(step, after);
      while (f && f % 2 === 0) half();
    } else after = node(after, step);
    half();
  }
  return !s && b64(before) === old && b64(after) === now;
}

// --- Texts
const marks = Object.fromEntries(new Intl.NumberFormat(locale).formatToParts(-1234567.5).map(({ type, value }) => [type, value]));
const group = (text) => {
  const [, sign, whole, part] = /^(-?)([0-9]+)(?:\.([0-9]+))?$/.exec(text);
  return `${sign && marks.minusSign}${whole.replace(/\B(?=([0-9]{3})+$)/g, marks.group)}${part ? `${marks.decimal}${part.padEnd(2, "0")}` : ""}`;
};
const records = (count) => tn("{count} record", "{count} records", count, { count: group(String(count)) });
const month = (period) => new Date(`${period}-15T00:00:00Z`).toLocaleDateString(locale, { month: "long", year: "numeric", timeZone: "UTC" });
const when = (moment) => new Date(moment).toLocaleString(locale, { day: "numeric", month: "long", year: "numeric", hour: "2-digit", minute: "2-digit" });

// --- The memory
function recall() {
  const text = localStorage.getItem(key);
  if (text === null) return null;
  const memory = JSON.parse(text);
  const good = (state) => Number.isSafeInteger(state.size) && state.size > 0 && unb64(state.root).length === 32;
  if (typeof memory.origin !== "string" || typeof memory.note !== "string" || Number.isNaN(Date.parse(memory.seen)) || !good(memory)) throw new Error();
  if (!Object.entries(memory.records).every(([name, state]) => /^\S+ [0-9]{4}-[0-9]{2}$/.test(name) && good(state) && !Number.isNaN(Date.parse(state.seen)))) throw new Error();
  return memory;
}
function remember(memory, now, states) {
  const seen = new Date().toISOString(), all = { ...memory?.records };
  for (const [name, { size, root, rec }] of states) { delete all[name]; all[name] = { size, root, rec, seen }; }
  const value = { ...now, seen, records: Object.fromEntries(Object.entries(all).slice(-KEPT)) };
  try { localStorage.setItem(key, JSON.stringify(value)); return true; } catch { return false; }
}

// --- The checks
// A proof file for all of a record up to the newest checkpoint: what it says, once it was found good.
async function proved(text, keys) {
  const found = await check(new Blob([text]), keys);
  need(found.result !== "does not match", found.reason);
  need(found.result === "matches", found.reason, Unknown);
  const extra = JSON.parse(new TextDecoder().decode(unb64(/^extra (.*)$/m.exec(text)[1]))), entry = JSON.parse(extra.entry), { window } = extra;
  need(window?.from === 0, t("the proof is not that of a whole record"));
  return { ...found, note: text.slice(text.indexOf("\n\n") + 2), name: `${JSON.parse(extra.head).cust} ${entry.period}`, period: entry.period,
    state: { size: window.to, root: window.root, rec: entry.rec } };
}
async function newest(note, keys) {
  const run = { keys, source: "this server" };
  let said = null;
  try { said = await opened(note, run); } catch (error) { throw new Differs(error.message); }
  need(run.signers.some(({ name }) => name === said[0]), t("the checkpoint of the log {log} is not signed by its key", { log: said[0] }));
  return { origin: said[0], size: said[1], root: said[2], note, signers: run.signers };
}
async function compareLog(memory, now) {
  const day = when(memory.seen);
  need(memory.origin === now.origin, t("on {day} this server showed the log {former}, and now it shows another one, {log}", { day, former: memory.origin, log: now.origin }));
  need(memory.size <= now.size, t("on {day} the log had {former} checkpoints, and now it has only {size}", { day, former: memory.size, size: now.size }));
  if (memory.size === now.size) {
    need(memory.root === now.root, t("the checkpoint of size {size} is another one than the one shown on {day}: the log was forked", { size: now.size, day }));
    return;
  }
  let path = null;
  try { ({ proof: path } = await json(`${place.log}/consistency?from=${memory.size}&to=${now.size}`)); } catch (error) { need(error.code === "LOG_IS_SMALLER", error.message, Unknown); }
  need(continues(memory.size, now.size, memory.root, now.root, path), t("the checkpoint of size {size} shown on {day} is not part of the log that is shown now", { size: memory.size, day }));
}
// Each period of this customer that was seen here: the record of now must begin with the record of then.
async function compareRecords(memory, current, now, keys) {
  const customer = current.name.split(" ")[0], states = [];
  for (const [name, old] of Object.entries(memory.records)) {
    const [whose, period] = name.split(" ");
    if (whose !== customer) continue;
    const what = t("the record of {period} shown on {day}", { period: month(period), day: when(old.seen) });
    let data = null;
    try { data = await get(`${place.api}/consistency?period=${period}&from=${old.size}`); } catch (error) {
      need(!["PERIOD_NOT_FOUND", "PROOF_NOT_FOUND", "RECORD_IS_SMALLER"].includes(error.code), t("{record} had {records}, and now: {message}", { record: what, records: records(old.size), message: error.message }));
      throw error;
    }
    const found = await proved(data.tlogProof, keys);
    need(found.note.split("\n\n")[0] === now.note.split("\n\n")[0], t("a new checkpoint was published meanwhile; check again"), Unknown);
    need(found.name === name && found.state.rec === old.rec, t("{record} was another one, {id}", { record: what, id: old.rec }));
    need(continues(old.size, found.state.size, old.root, found.state.root, data.proof), t("the beginning of {record}, {records}, is not that of the record that is shown now", { record: what, records: records(old.size) }));
    states.push([name, found.state]);
  }
  return states;
}
// The period of this page: the proof, and that the record's pages show the same.
async function checkRecord(keys, lines) {
  let data = null;
  try { data = await get(`${place.api}/proof?period=${place.period}`); } catch (error) {
    if (error.code !== "PERIOD_NOT_FOUND" && error.code !== "PROOF_NOT_FOUND") throw error;
    lines.push(error.code === "PERIOD_NOT_FOUND" ? t("Nothing recorded yet this period.") : t("No checkpoint covers a record of this period yet."));
    return null;
  }
  const found = await proved(data.tlogProof, keys), shown = await get(place.figures);
  lines.push(t("In this customer’s record: {records} of {period} with a total of {total} {unit}.", { records: records(found.rows), period: month(found.period), total: group(found.total), unit: found.unit }));
  if (shown.period !== found.period) return found;
  need(shown.records >= found.rows, t("the record page shows {records}, the checkpoint covers {covered}", { records: records(shown.records), covered: found.rows }));
  const newer = shown.records - found.rows;
  need(newer || (shown.total === found.total && shown.unit === found.unit), t("the record page shows a total of {shown}, the checkpoint covers {covered}", { shown: `${shown.total} ${shown.unit}`, covered: `${found.total} ${found.unit}` }));
  lines.push(newer ? t("Newer on the record page than the checkpoint: {records}. The next one covers them.", { records: records(newer) }) : t("The record page shows the same count and total."));
  return found;
}

// --- The page
const WORDS = { matches: t("✓ It matches"), differs: t("✗ It does not match"), unknown: t("? It could not be checked") };
const rank = (error) => (error instanceof Differs ? "differs" : "unknown");
const say = (error) => (error instanceof Differs || error instanceof Unknown ? error.message : t("an answer of the server is malformed ({error})", { error }));
function show(result, reason, lines, memory, prints, evidence) {
  $("live-result").textContent = WORDS[result];
  $("live-reason").textContent = reason && (result === "differs" ? t("What differs: {reason}.", { reason }) : t("Because: {reason}.", { reason }));
  $("live-checked").replaceChildren(...lines.map((line) => { const item = document.createElement("li"); item.textContent = line; return item; }));
  $("live-memory").textContent = memory;
  $("live-print").textContent = prints;
  $("live-key").hidden = !prints;
  $("live-evidence").hidden = !evidence;
  if (evidence) $("live-notes").textContent = evidence;
  $("live-again").hidden = false;
}
async function fingerprint(signers) {
  const digests = await Promise.all(signers.map(({ vkey }) => globalThis.crypto?.subtle?.digest("SHA-256", new TextEncoder().encode(vkey))));
  return digests.filter(Boolean).map((digest) => Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("")).join(", ");
}
async function run() {
  $("live-again").hidden = true;
  $("live-result").textContent = t("Checking…");
  for (const id of ["live-reason", "live-memory"]) $(id).textContent = "";
  $("live-key").hidden = true;
  $("live-checked").replaceChildren();
  const lines = [];
  let memory = null, forgetful = false, broken = false, now = null, keys = [], current = null, states = [], result = "matches", reason = "", remark = "";
  try { memory = recall(); } catch (error) { forgetful = error.name === "SecurityError"; broken = !forgetful; }
  try {
    keys = policy(await load(`${place.log}/policy`));
    if (place.api) current = await checkRecord(keys, lines);
    now = await newest(current ? current.note : await load(`${place.log}/checkpoint`), keys);
    lines.push(t("The checkpoint of size {size} of the log {log} is signed by the log’s key.", { size: now.size, log: now.origin }));
  } catch (error) { [result, reason] = [rank(error), say(error)]; }
  if (current) states = [[current.name, current.state]];
  let held = false;
  if (memory && now) {
    const then = when(memory.seen);
    try {
      await compareLog(memory, now);
      if (current) states = [...await compareRecords(memory, current, now, keys), ...states];
      held = true;
      remark = t("Everything this server showed you on {day} is still in the log.", { day: then });
    } catch (error) {
      remark = error instanceof Differs ? t("What this server showed you on {day} does not match what it shows now.", { day: then }) : t("What this server showed you on {day} could not be compared with what it shows now.", { day: then });
      if (result === "matches" || error instanceof Differs) [result, reason] = [rank(error), say(error)];
    }
  } else if (broken) {
    remark = t("What this browser remembers of an earlier visit cannot be read, so nothing was compared with it.");
    if (result === "matches") [result, reason] = ["unknown", t("what this browser remembers cannot be read")];
  }
  if (result === "matches" && (held || !memory)) {
    const kept = !forgetful && remember(memory, { origin: now.origin, size: now.size, root: now.root, note: now.note }, states);
    if (!memory) remark = kept ? t("This browser now remembers this checkpoint. At your next visit this page checks that everything shown today is still in the log.") : t("This browser keeps nothing from one visit to the next, so there is nothing to compare with.");
  }
  const prints = now ? await fingerprint(now.signers) : "";
  const evidence = result === "differs" && memory ? [t("Shown on {day}:", { day: when(memory.seen) }), memory.note.trim(), t("Shown now:"), now ? now.note.trim() : t("nothing that could be read")].join("\n\n") : broken ? t("Nothing of it could be read.") : "";
  show(result, reason, lines, remark, prints, evidence);
}
// A file that is checked here without its policy is judged by the key of this server, which the page says.
globalThis.sharedRecord.keys = () => load(`${place.log}/policy`).then(policy).catch(() => []);
$("live-forget").addEventListener("click", () => { localStorage.removeItem(key); run(); });
$("live-again").addEventListener("click", run);
$("live-script").hidden = false;
run();
})();
