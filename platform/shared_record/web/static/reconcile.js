"use strict";
// Matches a file of the reader's own with the recorded rows of one period, by reference, in this browser. The file is
// read piece by piece and never sent; the recorded rows are the activity page's data. Amounts are whole numbers of
// 10^-24, so sums are exact. What is kept grows with the number of references, which has a limit.
(() => {
const $ = (id) => document.getElementById(id), place = $("reconcile").dataset;
const SCALE = 24, WHOLE = 20, POWERS = Array.from({ length: SCALE + 1 }, (_, n) => 10n ** BigInt(n)), ONE = POWERS[SCALE];
const SAMPLE = 1 << 18, MOST_REFERENCES = 1_000_000, MOST_CELL = 1 << 16, MOST_COLUMNS = 1000, SHOWN = 200, PAGE = 500, PIECE = 1 << 16, REST = 40;
class Problem extends Error {}
class Superseded extends Error {}
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const fail = (name, values = {}) => { throw new Problem(fill(place[name], values)); };

// --- Amounts
const group = (number) => String(number).replace(/\B(?=([0-9]{3})+$)/g, place.group);
function plain(value, point = ".", grouped = String, minus = "-") {
  const digits = value < 0n ? -value : value;
  const fraction = String(digits % ONE).padStart(SCALE, "0").replace(/0+$/, "");
  return (value < 0n ? minus : "") + grouped(digits / ONE) + (fraction && point + fraction);
}
// Columns are set on as many decimals as any amount of the result has, as those of the other pages are: two are written,
// and what is missing beyond is left blank by the stylesheet.
let decimals = 0;
const fractionOf = (value) => plain(value).split(".")[1]?.length ?? 0;
function write(cell, value, sign = "") {
  const text = sign + plain(value, place.point, group, place.minus), has = fractionOf(value), least = Math.min(2, decimals);
  cell.textContent = has >= least ? text : text + (has ? "" : place.point) + "0".repeat(least - has);
  cell.dataset.pad = "0".repeat(Math.max(0, decimals - Math.max(has, least)));
}
const SPACES = /[\s\u00a0\u202f'’]/g;
// The sign, and the digits with their marks: "-12.5", "12.5-", "(12.5)" and "−12,5" are the ways books write them.
function signed(cell) {
  const text = cell.trim().replace(/^'/, "").replace(/\u2212/g, "-");
  const match = /^\((.*)\)$/.exec(text) ?? /^-(.*)$/.exec(text) ?? /^(.*)-$/.exec(text);
  return [Boolean(match), (match ? match[1] : text.replace(/^\+/, "")).trim()];
}
const GAP = "[\\s\\u00a0\\u202f'’]", wholes = (other) => new RegExp(`^(?:[0-9]+|[0-9]{1,3}(?:(?:${other}|${GAP})[0-9]{3})+)$`);
const WHOLES = { ".": wholes(","), ",": wholes("\\.") };
// The amount in a cell, or null where it is none in this notation: "1,5" is not read as 15.
function amount(cell, mark) {
  if (mark === "." && /^[0-9]{1,20}(?:\.[0-9]{1,24})?$/.test(cell)) { // most cells, and every recorded amount above zero
    const [whole, fraction = ""] = cell.split(".");
    return BigInt(whole + fraction) * POWERS[SCALE - fraction.length];
  }
  const [negative, text] = signed(cell);
  const at = text.lastIndexOf(mark), whole = at < 0 ? text : text.slice(0, at), fraction = at < 0 ? "" : text.slice(at + 1);
  if (!WHOLES[mark].test(whole) && !(at === 0 && fraction)) return null;
  if (!/^[0-9]*$/.test(fraction)) return null;
  const digits = whole.replace(SPACES, "").replace(/[.,]/g, "").replace(/^0+/, ""), rest = fraction.replace(/0+$/, "");
  if (digits.length > WHOLE || rest.length > SCALE) return null;
  const value = BigInt((digits || "0") + rest.padEnd(SCALE, "0"));
  return negative ? -value : value;
}
// Which mark separates decimals: "." or ",", "" where the cells leave it open, null where they contradict each other.
function decimalMark(cells) {
  const said = new Set();
  let open = false;
  for (const cell of cells) {
    const text = signed(cell)[1], marks = text.match(/[.,]/g) ?? [], last = marks.at(-1);
    if (!marks.length || !/^[0-9.,\s\u00a0\u202f'’]+$/.test(text)) continue;
    const other = last === "," ? "." : ",", after = text.length - 1 - text.lastIndexOf(last);
    if (marks.includes(other)) said.add(last);
    else if (marks.length > 1) said.add(other);
    else if (after !== 3 || /^0?[.,]/.test(text) || text.indexOf(last) > 3) said.add(last);
    else open = true;
  }
  if (said.size === 2) return null;
  return said.size ? [...said][0] : open ? "" : ".";
}

// --- CSV: RFC 4180, any line ends, blanks around nothing; `row` gets the cells and the line where they began.
class Lines {
  constructor(delimiter, row) {
    Object.assign(this, { delimiter, row, cells: [], cell: "", quoted: 0, line: 1, from: 1, cr: false });
  }
  push(text) {
    let start = 0, at = 0;
    for (; at < text.length; at += 1) {
      const char = text[at];
      if (this.cr) {
        this.cr = false;
        if (char === "\n") { start = at + 1; continue; }
      }
      if (this.quoted === 1) { // within quotation marks
        if (char === '"') { this.take(text, start, at); start = at + 1; this.quoted = 2; } else if (char === "\n") this.line += 1;
        continue;
      }
      if (char === '"' && this.quoted === 2) { start = at; this.quoted = 1; continue; } // "" is one mark
      if (char === '"' && !this.quoted && at === start && !this.cell) { start = at + 1; this.quoted = 1; this.opened = this.line; continue; }
      if (char === this.delimiter) { this.take(text, start, at); this.next(); start = at + 1; }
      else if (char === "\n" || char === "\r") { this.take(text, start, at); this.next(); this.end(); this.cr = char === "\r"; start = at + 1; }
    }
    this.take(text, start, at);
  }
  take(text, start, end) {
    if (end > start) this.cell += text.slice(start, end);
    if (this.cell.length > MOST_CELL) fail(this.quoted === 1 ? "unclosed" : "longCell", { line: this.quoted === 1 ? this.opened : this.line });
  }
  next() {
    this.cells.push(this.cell);
    this.cell = "";
    this.quoted = 0;
    if (this.cells.length > MOST_COLUMNS) fail("longCell", { line: this.line });
  }
  end() {
    const cells = this.cells, from = this.from;
    this.cells = [];
    this.line += 1;
    this.from = this.line;
    if (cells.length > 1 || cells[0].trim()) this.row(cells, from);
  }
  close() {
    if (this.quoted === 1) fail("unclosed", { line: this.opened });
    if (this.cell || this.cells.length || this.quoted) { this.next(); this.end(); }
  }
}

// --- The file
function encodingOf(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return "utf-16le";
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return "utf-16be";
  try { new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true }); return "utf-8"; } catch { return "windows-1252"; }
}
async function sampleOf(file) {
  const bytes = new Uint8Array(await file.slice(0, SAMPLE).arrayBuffer()), encoding = encodingOf(bytes);
  if (bytes.subarray(0, 4).join() === "80,75,3,4" || (encoding !== "utf-16le" && encoding !== "utf-16be" && bytes.includes(0))) fail("notText");
  return { encoding, text: new TextDecoder(encoding).decode(bytes, { stream: true }), whole: file.size <= SAMPLE };
}
function rowsOf(text, delimiter, whole) {
  const rows = [], lines = new Lines(delimiter, (cells) => { rows.push(cells); });
  try { lines.push(text); if (whole) lines.close(); } catch (error) { if (!(error instanceof Problem) || whole) throw error; }
  return rows;
}
// The delimiter that gives most rows the same number of columns, and more than one.
function delimiterOf(text, whole) {
  let best = [",", 0];
  for (const delimiter of [",", ";", "\t"]) {
    let rows = [];
    try { rows = rowsOf(text.slice(0, 1 << 16), delimiter, whole && text.length <= 1 << 16).slice(0, 200); } catch { continue; }
    const counts = new Map();
    for (const row of rows) if (row.length > 1) counts.set(row.length, (counts.get(row.length) ?? 0) + 1);
    const most = Math.max(0, ...counts.values());
    if (most > best[1]) best = [delimiter, most];
  }
  return best[0];
}
const isAmount = (cell) => amount(cell, ".") !== null || amount(cell, ",") !== null;
const reference = (cell) => cell.trim().replace(/^'(?=[=+\-@|%\t\r\n＝＋－＠｜％])/, "");
const NAMES = { reference: /ref|مرجع/i, key: /invoice|beleg|rechnung|factura|\bid\b|_id|number|nummer/i, amount: /amount|betrag|menge|importe|cantidad|quantity|qty|total|sum|value|delta|usage|مبلغ|كمية/i };
// Which column is which: the reference is where most cells are recorded references, else by name, else the first text.
function guess(rows, recorded) {
  const width = Math.max(...rows.map((row) => row.length)), columns = [...Array(width).keys()], body = rows.slice(rows.length > 1 ? 1 : 0, 200);
  const share = (column, test) => { const cells = body.map((row) => row[column] ?? "").filter((cell) => cell.trim()); return cells.filter(test).length / (cells.length || 1); };
  const known = new Set(recorded.map((row) => row.reference));
  const first = (column) => rows[0][column] ?? "";
  const best = (score) => columns.map((column) => [score(column), -column]).sort((a, b) => b[0] - a[0] || b[1] - a[1])[0];
  const [, key] = best((column) => 4 * share(column, (cell) => known.has(reference(cell))) + (NAMES.reference.test(first(column)) ? 2 : Number(NAMES.key.test(first(column)))) + share(column, (cell) => !isAmount(cell)) / 2);
  const [, sum] = best((column) => (-key === column ? -1 : 2 * share(column, isAmount) * (share(column, (cell) => cell.trim() !== "") || 1) + Number(NAMES.amount.test(first(column))) - (/balance|running|saldo/i.test(first(column)) ? 1 : 0)));
  return { width, key: -key, sum: -sum, named: !isAmount(first(-sum)) };
}

// --- The recorded rows
async function pageOf(url) {
  let answer = null;
  try { answer = await fetch(url, { cache: "no-store", redirect: "error" }); } catch { fail("unreachable"); }
  if (answer.status === 401) fail("closed");
  if (!answer.ok) fail("unreachable");
  return (await answer.json()).data;
}
const firstPage = () => pageOf(`${place.base}/activity.json?period=${place.period}&limit=${PAGE}`);

// --- Matching. An entry: my sum, my rows, the recorded sum, its rows.
async function match(file, chosen, progress) {
  const entries = new Map(), bad = { rows: 0, lines: [] };
  const entry = (key) => {
    let found = entries.get(key);
    if (!found) {
      if (entries.size >= MOST_REFERENCES) fail("tooMany", { count: group(MOST_REFERENCES) });
      entries.set(key, (found = [0n, 0, 0n, 0]));
    }
    return found;
  };
  let skip = chosen.named;
  const lines = new Lines(chosen.delimiter, (cells, line) => {
    if (skip) { skip = false; return; }
    const key = reference(cells[chosen.key] ?? ""), cell = (cells[chosen.sum] ?? "").trim();
    if (!key && !cell) return;
    const value = amount(cell, chosen.mark);
    if (value === null) { bad.rows += 1; if (bad.lines.length < 10) bad.lines.push(line); return; }
    const found = entry(key);
    found[0] += value;
    found[1] += 1;
  });
  const decoder = new TextDecoder(chosen.encoding, { fatal: chosen.encoding === "utf-8" }), reader = file.stream().getReader();
  let read = 0, rested = performance.now();
  for (let done = false; !done;) {
    const piece = await reader.read();
    done = piece.done;
    const text = done ? decoder.decode() : decoder.decode(piece.value, { stream: true });
    for (let at = 0; at < text.length; at += PIECE) {
      lines.push(text.slice(at, at + PIECE));
      if (performance.now() - rested < REST) continue;
      progress((read + (at / text.length) * piece.value.length) / file.size, 0);
      await new Promise((resolve) => { setTimeout(resolve); }); // let the page be drawn, and answer
      rested = performance.now();
    }
    read += piece.value?.length ?? 0;
  }
  lines.close();
  let seen = 0, total = 0n, page = await firstPage();
  const { count, total: stated, asOf } = page;
  for (;;) {
    for (const row of page.records) {
      const value = amount(row.amount, "."), found = entry(row.reference ?? "");
      found[2] += value;
      found[3] += 1;
      total += value;
      seen += 1;
    }
    progress(1, count ? seen / count : 1);
    if (!page.links.older) break;
    page = await pageOf(page.links.older);
  }
  if (seen !== count || plain(total) !== stated) fail("changed");
  return { entries, bad, recorded: [total, seen], asOf };
}
const KINDS = ["matched", "different", "yours", "recorded"];
const kindOf = ([mine, myRows, theirs, theirRows], key) => (!theirRows ? "yours" : !myRows ? "recorded" : key && mine === theirs ? "matched" : "different");
// What has no reference matches nothing, so the two sums of such rows stand for themselves.
function* sorted(entries) {
  for (const [key, entry] of entries) {
    if (key || !entry[1] || !entry[3]) yield [kindOf(entry, key), key, entry];
    else { yield ["yours", key, [entry[0], entry[1], 0n, 0]]; yield ["recorded", key, [0n, 0, entry[2], entry[3]]]; }
  }
}
const FORMULA = /^[=+\-@|%\t\r\n\0＝＋－＠｜％]/;
const guarded = (text) => `"${FORMULA.test(text) ? "'" : ""}${text.replaceAll('"', '""')}"`;
function* csv(entries) {
  yield "result,reference,your_amount,recorded_amount,difference,your_rows,recorded_rows\r\n";
  for (const [kind, key, [mine, myRows, theirs, theirRows]] of sorted(entries)) {
    yield `${kind},${guarded(key)},${myRows ? plain(mine) : ""},${theirRows ? plain(theirs) : ""},${myRows && theirRows ? plain(mine - theirs) : ""},${myRows},${theirRows}\r\n`;
  }
}

// --- The page
function cell(row, name) {
  const made = row.insertCell();
  made.setAttribute("role", "cell");
  made.className = name;
  return made;
}
function amountCell(row, value, sign) {
  const made = cell(row, "amount");
  made.dataset.name = row.parentNode.parentNode.tHead.rows[0].cells[made.cellIndex].textContent;
  write(made, value, sign);
}
function rowFor(body, kind, key, [mine, myRows, theirs, theirRows]) {
  const row = body.insertRow(), name = cell(row, "what");
  name.textContent = key || place.none;
  row.setAttribute("role", "row");
  name.dir = "auto";
  if (!key) name.classList.add("aside-text");
  if (kind !== "recorded") amountCell(row, mine);
  if (kind !== "yours") amountCell(row, theirs);
  if (kind === "different") amountCell(row, mine - theirs, mine > theirs ? "+" : "");
  if (Math.max(myRows, theirRows) > 1) {
    const rows = document.createElement("span");
    rows.className = "reason";
    rows.textContent = ` ${fill(place.rows, { yours: group(myRows), recorded: group(theirRows) })}`;
    name.append(rows);
  }
}
let download = "";
function show({ entries, bad, recorded, asOf }, chosen) {
  const sums = Object.fromEntries(KINDS.map((kind) => [kind, [0, 0n, 0n]])), bodies = {};
  for (const kind of KINDS) { bodies[kind] = $(`${kind}-rows`); bodies[kind].replaceChildren(); }
  let repeated = 0, all = [0n, 0], longest = 0;
  for (const [mine, , theirs] of entries.values()) longest = Math.max(longest, fractionOf(mine), fractionOf(theirs));
  decimals = longest && Math.min(8, Math.max(2, longest));
  for (const [kind, key, entry] of sorted(entries)) {
    const sum = sums[kind];
    sum[0] += 1;
    sum[1] += entry[0];
    sum[2] += entry[2];
    if (sum[0] <= SHOWN) rowFor(bodies[kind], kind, key, entry);
    if (key && entry[1] > 1) repeated += 1;
    all = [all[0] + entry[0], all[1] + entry[1]];
  }
  for (const kind of KINDS) {
    const [count, mine, theirs] = sums[kind];
    $(`${kind}-count`).textContent = group(count);
    if (kind !== "recorded") write($(`${kind}-mine`), mine);
    if (kind !== "yours") write($(`${kind}-theirs`), theirs);
    $(`${kind}-title`).textContent = group(count);
    $(kind).hidden = !count;
    $(kind).open = kind !== "matched" && count <= SHOWN;
    $(`${kind}-more`).textContent = count > SHOWN ? fill(place.more, { shown: SHOWN, count: group(count) }) : "";
  }
  $("all-count").textContent = group(KINDS.reduce((sum, kind) => sum + sums[kind][0], 0));
  write($("all-mine"), all[0]);
  write($("all-theirs"), recorded[0]);
  const notes = [fill(place.read, { yours: group(all[1]), recorded: group(recorded[1]), time: asOf.time.slice(0, 16).replace("T", " ") })];
  if (repeated) notes.push(fill(place.repeated, { count: group(repeated) }));
  if (bad.rows) notes.push(fill(place.unread, { count: group(bad.rows), lines: bad.lines.join(", ") + (bad.rows > bad.lines.length ? " …" : "") }));
  if (chosen.encoding === "windows-1252") notes.push(place.encoding);
  $("notes").replaceChildren(...notes.map((note) => { const item = document.createElement("li"); item.textContent = note; return item; }));
  const parts = [];
  let part = "\ufeff";
  for (const line of csv(entries)) { part += line; if (part.length > 1 << 20) { parts.push(part); part = ""; } }
  URL.revokeObjectURL(download);
  download = URL.createObjectURL(new Blob([...parts, part], { type: "text/csv" }));
  $("save").href = download;
  $("outcome").hidden = false;
  $("outcome-title").focus();
}

let file = null, sample = null, run = 0;
function complain(error) {
  if (!(error instanceof Problem)) throw error;
  $("trouble").textContent = error.message;
  $("progress").hidden = true;
}
function options(select, list, chosen) {
  select.replaceChildren(...list.map(([value, text]) => new Option(text, value, false, value === chosen)));
}
const recordedSample = () => (sample.recorded ??= firstPage());
function markOf(rows) {
  const column = Number($("sum").value), named = $("named").checked, mark = decimalMark(rows.slice(named ? 1 : 0).map((row) => row[column] ?? ""));
  $("mark").value = mark || "";
  $("mark-hint").hidden = Boolean(mark);
}
async function prepare(delimiter) {
  const mine = ++run;
  const rows = rowsOf(sample.text, delimiter, sample.whole);
  if (!rows.length) fail("empty");
  const { records } = await recordedSample(), found = guess(rows, records);
  if (mine !== run) return;
  if (found.width < 2) fail("oneColumn");
  const name = (column) => (found.named && rows[0][column]?.trim() ? rows[0][column].trim() : fill(place.column, { number: column + 1 }));
  const example = (column) => (rows[found.named ? 1 : 0]?.[column] ?? "").trim();
  const columns = [...Array(found.width).keys()].map((column) => [String(column), (name(column) + (example(column) ? `: ${example(column)}` : "")).slice(0, 80)]);
  options($("key"), columns, String(found.key));
  options($("sum"), columns, String(found.sum));
  $("delimiter").value = delimiter;
  $("named").checked = found.named;
  sample.rows = rows;
  markOf(rows);
  $("choices").hidden = false;
}
async function take(chosen) {
  $("trouble").textContent = "";
  $("outcome").hidden = true;
  $("choices").hidden = true;
  file = chosen;
  try {
    if (!file.size) fail("empty");
    sample = await sampleOf(file);
    await prepare(delimiterOf(sample.text, sample.whole));
  } catch (error) { complain(error); }
}
$("file").addEventListener("change", () => { if ($("file").files[0]) take($("file").files[0]); });
$("delimiter").addEventListener("change", async () => {
  $("trouble").textContent = "";
  try { await prepare($("delimiter").value); } catch (error) { complain(error); }
});
$("sum").addEventListener("change", () => markOf(sample.rows));
$("named").addEventListener("change", () => markOf(sample.rows));
$("choices").addEventListener("submit", async (event) => {
  event.preventDefault();
  const chosen = { key: Number($("key").value), sum: Number($("sum").value), delimiter: $("delimiter").value, mark: $("mark").value, named: $("named").checked, encoding: sample.encoding };
  const mine = ++run, bar = $("bar");
  $("trouble").textContent = "";
  $("outcome").hidden = true;
  $("progress").hidden = false;
  $("progress").scrollIntoView({ block: "nearest" });
  try {
    if (chosen.key === chosen.sum) fail("sameColumn");
    const progress = (read, fetched) => { bar.value = (read + fetched) / 2; if (mine !== run) throw new Superseded(); };
    let found = null;
    try { found = await match(file, chosen, progress); } catch (error) {
      if (!(error instanceof TypeError) || chosen.encoding !== "utf-8") throw error;
      chosen.encoding = "windows-1252"; // not UTF-8 after all, further down than the sample goes
      found = await match(file, chosen, progress);
    }
    show(found, chosen);
    $("progress").hidden = true;
  } catch (error) { if (!(error instanceof Superseded)) complain(error); }
});
addEventListener("dragover", (event) => { event.preventDefault(); $("reconcile").classList.add("over"); });
addEventListener("dragleave", () => $("reconcile").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("reconcile").classList.remove("over");
  const dropped = event.dataTransfer.files;
  if (!dropped.length) return;
  $("file").files = dropped;
  take(dropped[0]);
});
for (const text of document.querySelectorAll(".without")) text.hidden = true;
$("reconcile").hidden = false;
globalThis.sharedRecordReconcile = { amount, decimalMark, delimiterOf, plain, rowsOf };
})();
