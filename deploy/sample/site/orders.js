"use strict";

async function call(options) {
  const response = await fetch("/api/orders", options);
  if (response.status === 401) {
    // The session has ended: to sign in, and back.
    return location.assign("/auth/ui/login?return_to=" + encodeURIComponent(location.pathname));
  }
  const { user, orders } = await response.json();
  document.getElementById("user").textContent = user;
  const items = orders.map((what) => Object.assign(document.createElement("li"), { textContent: what }));
  document.getElementById("orders").replaceChildren(...items);
}

document.getElementById("order").addEventListener("submit", (event) => {
  event.preventDefault();
  const body = JSON.stringify(Object.fromEntries(new FormData(event.target)));
  call({ method: "POST", headers: { "Content-Type": "application/json" }, body });
  event.target.reset();
});

call();
