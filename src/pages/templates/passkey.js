// Makes or shows a passkey for the form that asks for it, and sends that.
"use strict";
const bytes = text => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), c => c.charCodeAt(0));
const text = buffer => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const known = list => (list || []).map(entry => ({...entry, id: bytes(entry.id)}));
const create = async options => {
  options.challenge = bytes(options.challenge);
  options.user.id = bytes(options.user.id);
  options.excludeCredentials = known(options.excludeCredentials);
  const made = await navigator.credentials.create({publicKey: options});
  return {made, response: {attestationObject: text(made.response.attestationObject)}};
};
const show = async options => {
  options.challenge = bytes(options.challenge);
  options.allowCredentials = known(options.allowCredentials);
  const made = await navigator.credentials.get({publicKey: options});
  const {authenticatorData, signature, userHandle} = made.response;
  const response = {authenticatorData: text(authenticatorData), signature: text(signature)};
  return {made, response: userHandle ? {...response, userHandle: text(userHandle)} : response};
};
for (const form of document.querySelectorAll("form[data-passkey]")) {
  const run = async () => {
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      const options = JSON.parse(form.dataset.options);
      const {made, response} = await (form.dataset.passkey === "create" ? create(options) : show(options));
      response.clientDataJSON = text(made.response.clientDataJSON);
      form.elements.credential.value = JSON.stringify({id: made.id, rawId: made.id, type: made.type, response});
      form.submit();
    } catch {
      form.querySelector("[data-failed]").hidden = false;
      button.disabled = false;
    }
  };
  form.addEventListener("submit", event => {
    event.preventDefault();
    run();
  });
  if (form.dataset.begun) run();
}
