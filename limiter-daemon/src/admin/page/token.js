"use strict";
// Who looks: where the daemon wants a token, it is asked for once, kept by this tab until it is closed,
// and shown with each question. It goes nowhere else.
const asking = (() => {
  const KEY = "limiterd-token";
  const form = document.getElementById("who");
  const field = document.getElementById("token");

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, field.value.trim());
    field.value = "";
    form.hidden = true;
  });

  /** As fetch; a refusal for want of a token has the page ask for one. */
  return async (path, how) => {
    const token = sessionStorage.getItem(KEY);
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const answer = await fetch(path, { ...how, headers });
    // Not if another one was given meanwhile.
    if (answer.status === 401 && sessionStorage.getItem(KEY) === token) {
      sessionStorage.removeItem(KEY);
      form.hidden = false;
    }
    return answer;
  };
})();
