/* The answers of this browser's raters: kept in its storage, and handed over as a file.
   Names and phrases come from data: they only ever become text, never HTML. */
"use strict";
(function () {
  const data = JSON.parse(document.getElementById("survey").textContent);
  const PLACE = data.format + " " + data.survey;
  /* {current: name, keys: whether single keys answer, sheets: [{name, at, answers: [answer or null per question]}]} */
  let kept = read();
  let stored = true;

  /* What the storage holds of this survey; nothing where it is empty, closed to us, or holds something else. */
  function read() {
    const empty = {current: "", keys: true, sheets: []};
    try {
      const found = JSON.parse(localStorage.getItem(PLACE));
      const isAnswer = (one) => one === null || typeof one === "object" && typeof (one.description ?? "") === "string";
      const isSheet = (one) => typeof one.name === "string" && data.questions[one.at] && one.answers.every(isAnswer) &&
        one.answers.length === data.questions.length;
      return typeof found.current === "string" && found.sheets.every(isSheet) ? found : empty;
    } catch {
      return empty;
    }
  }

  /* Whether this tab was answering before a reload; a tab that is opened anew asks who is there. */
  function wasOpen() {
    try {
      return sessionStorage.getItem(PLACE) === "open";
    } catch {
      return false;
    }
  }

  function save() {
    try {
      localStorage.setItem(PLACE, JSON.stringify(kept));
      if (kept.current) sessionStorage.setItem(PLACE, "open");
      stored = true;
    } catch {
      stored = false;
    }
  }

  const plain = (name) => name.trim().replace(/\s+/g, " ");
  const find = (name) => kept.sheets.find((one) => one.name.toLowerCase() === plain(name).toLowerCase());
  const sheet = () => find(kept.current);

  /* Begin the sheet of this person, or go on with it. */
  function begin(name) {
    if (!find(name)) kept.sheets.push({name: plain(name), at: 0, answers: data.questions.map(() => null)});
    kept.current = find(name).name;
    save();
  }

  function answer(question, value) {
    sheet().answers[question] = value;
    save();
  }

  function move(question) {
    sheet().at = question;
    save();
  }

  function useKeys(use) {
    kept.keys = use;
    save();
  }

  function complete(value) {
    if (!value) return false;
    if (data.ask === "phrase") return typeof value.yes === "boolean";
    return value.kind === data.nothing || (data.kinds.includes(value.kind) && plain(value.description || "") !== "");
  }

  const answered = (one) => one.answers.filter(complete).length;

  function file() {
    const mine = sheet();
    const answers = mine.answers.flatMap(function (value, question) {
      if (!complete(value)) return [];
      if (data.ask === "phrase") return [{question, yes: value.yes}];
      return value.kind === data.nothing ? [{question, kind: value.kind}] : [{question, kind: value.kind, description: plain(value.description)}];
    });
    return {format: data.format, survey: data.survey, dissection: data.dissection, rater: mine.name, answers};
  }

  /* Save the file through the browser, and return its name. */
  function download() {
    const url = URL.createObjectURL(new Blob([JSON.stringify(file(), null, 1)], {type: "application/json"}));
    const link = document.createElement("a");
    const who = sheet().name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
    link.href = url;
    link.download = "answers-" + data.survey.slice(0, 12) + "-" + (who || "rater") + ".json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    return link.download;
  }

  window.survey = {
    data, plain, begin, answer, move, useKeys, sheet, find, complete, answered, download,
    sheets: () => kept.sheets,
    keys: () => kept.keys !== false,
    isStored: () => stored,
    isOurs: (event) => event.key === PLACE,
    readAgain: () => { kept = read(); },
    wasOpen, save,
  };
})();
