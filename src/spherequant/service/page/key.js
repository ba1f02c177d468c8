// @ts-check
/** The dialog that asks for an API key, which stays in this tab's session storage. */

import { onKeyNeeded, useApiKey } from "./api.js";
import { byId } from "./dom.js";

/** Ask for a key whenever the service wants one. */
export function askForKeys() {
  /** @type {HTMLDialogElement} */
  const dialog = byId("key-dialog");
  /** @type {HTMLInputElement} */
  const field = byId("api-key");
  let given = false;

  byId("key-form").addEventListener("submit", () => {
    useApiKey(field.value.trim());
    given = true;
  });
  byId("key-cancel").addEventListener("click", () => dialog.close());

  onKeyNeeded((refused) => {
    byId("key-text").textContent = refused
      ? "The key that was given is not accepted. Try another one."
      : "Whoever runs the service can give you one.";
    field.value = "";
    given = false;
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(given), { once: true });
    });
  });
}
