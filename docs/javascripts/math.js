for (const formula of document.querySelectorAll(".arithmatex")) {
  const tex = formula.textContent.trim().slice(2, -2); // without \( \) or \[ \]
  katex.render(tex, formula, { displayMode: formula.tagName === "DIV", throwOnError: false });
  const next = formula.nextSibling;
  if (/^[,.;:)]/.test(next?.nodeValue ?? "")) next.nodeValue = "\u2060" + next.nodeValue; // no line begins with it
}
