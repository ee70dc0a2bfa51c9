// A long name in a table may break after a mark, and nowhere else.
for (const code of document.querySelectorAll("td code")) {
  if (code.children.length || code.textContent.length < 30) continue;
  const parts = code.textContent.split(/(?<=[._\/:=])(?=\w)/);
  code.replaceChildren(...parts.flatMap((part) => [document.createElement("wbr"), part]).slice(1));
}
