/* The three screens: the start, one question at a time, and the end with the download. */
"use strict";
(function () {
  const {data, plain, begin, answer, move, useKeys, sheet, find, complete, answered, download, sheets, keys, isStored, isOurs, readAgain, wasOpen, save} = window.survey;
  const at = (name) => document.getElementById(name);
  const last = data.questions.length - 1;
  const phrases = data.ask === "phrase";
  const radios = [...document.querySelectorAll("input[name=kind]")];
  let screen = "start";
  let handed = null;  /* what was downloaded last */

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const noun = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
  const of = (one) => `${answered(one)} of ${noun(last + 1, "question")}`;

  function show(name) {
    screen = name;
    for (const one of ["start", "ask", "end"]) at(one).hidden = one !== name;
    at("top").hidden = name === "start";
    at("finish").hidden = name !== "ask";
    progress();
    ({start, ask, end})[name]();
    window.scrollTo(0, 0);
    document.querySelector(`#${name} h1`).focus({preventScroll: true});
  }

  function progress() {
    at("failure").hidden = isStored();
    at("failure").textContent = "This browser does not keep your answers: download them before you close the page.";
    if (screen === "start") return;
    at("where").textContent = (screen === "ask" ? `Question ${sheet().at + 1} of ${last + 1} · ` : "") + noun(answered(sheet()), "answer");
    at("progress").value = answered(sheet());
  }

  function start() {
    at("name").value = at("name").value || (sheet() ? sheet().name : "");
    at("keys").checked = keys();
    const here = sheets().filter((one) => answered(one));
    at("name-hint").textContent = here.length
      ? "Kept in this browser: " + here.map((one) => `${one.name}, ${of(one)}`).join("; ") + ". Give the same name to go on."
      : "";
  }

  /* Fill the screen with the question that the sheet is at. */
  function ask() {
    const question = data.questions[sheet().at];
    at("question").replaceChildren(...(phrases
      ? ["Does ", make("q", {}, question.phrase), " describe most of the bright patches?"]
      : ["What do most of the bright patches show?"]));
    const pictures = JSON.parse(at("pictures-" + question.pictures).textContent);
    at("pictures").replaceChildren(...pictures.map((url, n) => make("li", {}, make("img", {src: url, alt: `Picture ${n + 1}`}))));
    if (!phrases) {
      const value = sheet().answers[sheet().at] || {};
      at("description").value = value.description || "";
      radios.forEach((one) => { one.checked = one.value === value.kind; });
    }
    state();
  }

  /* What the answer bar says of the answer. */
  function state() {
    const value = sheet().answers[sheet().at], done = complete(value);
    at("back").disabled = sheet().at === 0;
    at("next").textContent = done ? "Next" : "Skip";
    if (phrases) {
      at("yes").setAttribute("aria-pressed", String(done && value.yes));
      at("no").setAttribute("aria-pressed", String(done && !value.yes));
      at("state").textContent = done ? `You said ${value.yes ? "yes" : "no"}` : "";
    } else {
      const words = Boolean(value && plain(value.description || "")), kind = Boolean(value && value.kind);
      at("description").disabled = Boolean(value && value.kind === data.nothing);
      at("state").textContent = done ? "Answered" : words ? "Choose a kind, too" : kind ? "Say it in words, too" : "";
    }
    progress();
  }

  /* Go to a question; past the last one is the end. */
  function go(question) {
    if (question > last) return show("end");
    move(Math.max(0, question));
    return show("ask");
  }

  function end() {
    const mine = sheet();
    at("summary").textContent = `${mine.name}, you have answered ${of(mine)}.`;
    const open = mine.answers.flatMap((value, n) => complete(value) ? [] : [n]);
    at("open-questions").hidden = !open.length;
    at("open").replaceChildren(...open.map(function (n) {
      const button = make("button", {type: "button", "aria-label": `Question ${n + 1}`}, String(n + 1));
      button.addEventListener("click", () => go(n));
      return make("li", {}, button);
    }));
  }

  function say(yes) {
    answer(sheet().at, {yes});
    go(sheet().at + 1);
  }

  function describe() {
    const kind = radios.find((one) => one.checked);
    answer(sheet().at, {kind: kind ? kind.value : null, description: at("description").value});
    state();
  }

  at("begin").addEventListener("submit", function (event) {
    event.preventDefault();
    if (!plain(at("name").value)) {
      at("name-hint").textContent = "Give a name first: answers of several people are compared.";
      at("name").focus();
      return;
    }
    begin(at("name").value);
    useKeys(at("keys").checked);
    go(find(at("name").value).at);
  });
  at("answer").addEventListener("submit", function (event) {
    event.preventDefault();
    go(sheet().at + 1);
  });
  at("back").addEventListener("click", () => go(sheet().at - 1));
  at("finish").addEventListener("click", () => show("end"));
  at("return").addEventListener("click", () => show("ask"));
  at("download").addEventListener("click", function () {
    handed = JSON.stringify(sheet().answers);
    at("downloaded").textContent = `Downloaded ${download()}. Send this file to the person who gave you this page. You can go on and download again: only the last file counts.`;
  });
  if (phrases) {
    at("yes").addEventListener("click", () => say(true));
    at("no").addEventListener("click", () => say(false));
  } else {
    at("description").addEventListener("input", describe);
    radios.forEach((one) => one.addEventListener("change", describe));
  }

  /* A key that is held down answers once; with Ctrl, Alt or Meta it is the browser's; while one types it is a letter. */
  document.addEventListener("keydown", function (event) {
    const typing = event.target.tagName === "INPUT" && event.target.type !== "radio";
    if (screen !== "ask" || !keys() || typing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const onRadio = event.target.type === "radio";
    if (key === "arrowleft" && !onRadio && sheet().at > 0) go(sheet().at - 1);
    else if (key === "arrowright" && !onRadio) go(sheet().at + 1);
    else if (!phrases && key === "enter" && !event.target.closest("button, input")) go(sheet().at + 1);
    else if (phrases && (key === "y" || key === "n")) say(key === "y");
    else if (!phrases && /^[0-6]$/.test(key)) {
      const radio = radios[(Number(key) + 6) % 7];
      radio.checked = true;
      radio.focus();
      describe();
    } else return;
    event.preventDefault();
  });

  /* The same survey in another tab. */
  window.addEventListener("storage", function (event) {
    if (!isOurs(event)) return;
    readAgain();
    if (screen !== "start" && !sheet()) show("start");
    else show(screen);
  });

  window.addEventListener("beforeunload", function (event) {
    if (!isStored() && sheet() && answered(sheet()) && handed !== JSON.stringify(sheet().answers)) event.preventDefault();
  });

  const goesOn = wasOpen() && sheet();
  save();  /* whether the browser keeps anything shows at once */
  show(goesOn ? "ask" : "start");
})();
