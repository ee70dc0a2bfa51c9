// What Gradio's components lack: words for pictures, arrow keys in the plane, and error messages that stay.
() => {
  const words = {
    photo: "Your photo",
    faces: "A face of the photo",
    before: "The photo before your changes",
    after: "The photo with your changes",
    compare: "The photo before and with your changes",
    plane: "This face with kinds of the attribute. Arrow keys move the ring",
  };
  const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };
  const problem = () => document.querySelector("#problem");
  let shown = "";
  const complete = () => {
    for (const [id, alt] of Object.entries(words))
      for (const image of document.querySelectorAll(`#${id} img`)) if (image.alt !== alt) image.alt = alt;
    document.querySelector("#message")?.setAttribute("role", "alert");
    const error = document.querySelector("[data-testid='toast-text'].error");
    if (error && problem() && problem().textContent !== error.textContent) problem().textContent = error.textContent;
    const after = document.querySelector("#after img")?.src ?? "";
    if (after !== shown && problem() && after) problem().textContent = "";
    shown = after;
  };
  new MutationObserver(complete).observe(document.body, { childList: true, subtree: true, attributeFilter: ["src"] });
  document.addEventListener(
    "keydown",
    (event) => {
      if (!event.target.closest?.("#plane")) return;
      if (event.key in keys) document.querySelector(`#plane-${keys[event.key]}`).click();
      if (event.key in keys || event.key === "Enter" || event.key === " ") event.preventDefault(); // a click without a place
    },
    true,
  );
  complete();
};
