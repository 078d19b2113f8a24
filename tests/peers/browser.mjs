// Walks the pages with Chromium, as people do, and looks for what would be in their way.
//
//   node browser.mjs BASE PASSWORD FOLDER
//
// BASE is the origin of a gateway with pages and a route /api/**. Pictures of the main pages go to FOLDER. What is found is printed, a line
// each; the last line is `walked N pages`.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { totp } from "./totp.mjs";

const peers = createRequire(join(process.env.PEERS, "package.json"));
const { chromium } = peers("playwright-core");
const axe = readFileSync(peers.resolve("axe-core/axe.min.js"), "utf8");
const [base, password, folder] = process.argv.slice(2);

let walked = 0;
const found = (where, what) => console.log(`${where}: ${what}`);

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--ignore-certificate-errors"] });

// Looks at the page that is shown.
async function look(page, where, picture) {
  walked += 1;
  if (page.context().script) {
    await page.evaluate(axe);
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const { violations } = await page.evaluate((values) => window.axe.run(document, { runOnly: values }), tags);
    for (const { id, nodes } of violations) found(where, `${id}: ${nodes[0].html}`);
  }
  const width = await page.locator("html").evaluate((html) => html.scrollWidth - window.innerWidth);
  if (width > 0) found(where, `${width} px wider than the window`);
  if (picture) await page.screenshot({ path: join(folder, `${picture}.png`) });
}

async function visit({ theme, language, width, script }) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true,
    colorScheme: theme,
    locale: language,
    viewport: { width, height: 800 },
    javaScriptEnabled: script,
  });
  context.script = script;
  const name = `${language} ${theme} ${width}${script ? "" : " without script"}`;
  const pictured = script && language === "en-GB" && width === 1280;
  const page = await context.newPage();
  page.on("console", (message) => {
    // Statuses that are shown as pages are errors to the browser.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) found(name, message.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(base) && !url.endsWith("/public/away") && !url.startsWith("data:")) found(name, `a request to ${url}`);
  });
  const go = (path) => page.goto(base + path);
  const picture = (what) => (pictured ? `${what}-${theme}` : undefined);
  const submit = (selector = "form button") => Promise.all([page.waitForNavigation(), page.click(selector)]);
  const at = (path) => {
    const { pathname } = new URL(page.url());
    if (pathname !== path) found(name, `at ${pathname}, not at ${path}`);
  };

  // Somebody who has no account wants to see something.
  await go("/api/report?year=2026");
  at("/auth/ui/login");
  await look(page, `${name}: login`, picture("login"));
  await page.click("a[href*=register]");
  at("/auth/ui/register");
  await look(page, `${name}: register`);
  const user = `user${Math.random().toString(36).slice(2, 10)}`;
  await page.fill("[autocomplete=username]", user);
  await page.fill("[autocomplete=new-password]", "short");
  await submit();
  await look(page, `${name}: register with errors`);
  await page.fill("[autocomplete=new-password]", password);
  await page.press("[autocomplete=new-password]", "Enter");
  await page.waitForURL(`${base}/api/report?year=2026`);
  await context.clearCookies({ name: "__Host-authgate" });

  // The application leads on to another site.
  await go("/auth/ui/login?return_to=/away/x");
  await page.fill("[autocomplete=username]", user);
  await page.fill("[autocomplete=current-password]", password);
  await page.press("[autocomplete=current-password]", "Enter");
  await page.waitForURL(base.replace("localhost", "127.0.0.1") + "/public/away");
  await context.clearCookies({ name: "__Host-authgate" });

  // Sign in with the keyboard alone.
  await go("/auth/ui/login?return_to=/auth/ui/account");
  await page.focus("[autocomplete=username]");
  await page.keyboard.type(user);
  await page.keyboard.press("Tab");
  await page.keyboard.type("a wrong password of ten words");
  await page.keyboard.press("Enter");
  await page.waitForSelector("[role=alert]");
  await look(page, `${name}: login with errors`);
  await page.fill("[autocomplete=current-password]", password);
  await page.keyboard.press("Enter");
  await page.waitForURL(`${base}/auth/ui/account`);
  await look(page, `${name}: account`, picture("account"));
  for (const what of ["name", "password", "email", "sessions", "delete"]) {
    await go(`/auth/ui/account/${what}`);
    await look(page, `${name}: account/${what}`, what === "sessions" ? picture(what) : undefined);
  }
  await go("/auth/ui/account/name");
  await page.fill("[autocomplete=username]", `${user}x`);
  await submit();
  at("/auth/ui/account");
  await look(page, `${name}: account with a notice`);

  // A key for a program: asked for too much, made, shown once, ended.
  await go("/auth/ui/account/keys");
  await look(page, `${name}: account/keys`);
  await page.fill("[type=text]", "nightly backup");
  await page.fill("[name=routes]", "/admin/**");
  await submit("main form:last-of-type button");
  await look(page, `${name}: account/keys with errors`);
  await page.fill("[name=routes]", "/api/**");
  await submit("main form:last-of-type button");
  await look(page, `${name}: a new key`, picture("keys"));
  const key = await page.textContent(".notice code");
  const used = await context.request.get(`${base}/api/report`, { headers: { Authorization: `Bearer ${key}` } });
  if (used.status() !== 200) found(name, `${used.status()} with a new key`);
  await go("/auth/ui/account/keys");
  if ((await page.content()).includes(key)) found(name, "a key is shown twice");
  await submit("[name=end]");
  await look(page, `${name}: account/keys after the end of one`);
  for (const path of ["/nowhere", "/admin/x", "/auth/ui/forgot", "/auth/ui/reset?token=x", "/auth/ui/verify?token=x"]) {
    await go(path);
    await look(page, `${name}: ${path}`);
  }

  // An app, by its picture or what is written beside it.
  await go("/auth/ui/account/factors");
  await look(page, `${name}: account/factors`);
  await submit("[value=totp]");
  await look(page, `${name}: a new app`, picture("app"));
  await page.fill("[autocomplete=one-time-code]", "000000");
  await submit();
  await look(page, `${name}: a new app with errors`);
  const secret = await page.textContent("code");
  await page.fill("[autocomplete=one-time-code]", totp(secret));
  await submit();
  await look(page, `${name}: recovery codes`);
  const recovery = await page.locator("code").allTextContents();
  await page.click("main a");
  at("/auth/ui/account/factors");

  // The second step, then a passkey on the way back.
  const signIn = async (to) => {
    await context.clearCookies({ name: "__Host-authgate" });
    await go(to);
    await page.fill("[autocomplete=username]", `${user}x`);
    await page.fill("[autocomplete=current-password]", password);
    await submit();
    at("/auth/ui/factor");
  };
  await signIn("/api/report");
  await look(page, `${name}: factor`, picture("factor"));
  await page.fill("[autocomplete=one-time-code]", "000000");
  await submit();
  await look(page, `${name}: factor with errors`);
  await page.click("a[href*=recovery]");
  await look(page, `${name}: factor by a recovery code`);
  await page.fill("[autocomplete=one-time-code]", recovery[0]);
  await page.check("[type=checkbox]");
  await submit();
  at("/api/report");
  await go("/auth/ui/prove?return_to=/api/report");
  await look(page, `${name}: prove by a factor`);
  if (script) {
    const device = await context.newCDPSession(page);
    await device.send("WebAuthn.enable");
    const kind = { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true };
    const options = { ...kind, isUserVerified: true, automaticPresenceSimulation: true };
    await device.send("WebAuthn.addVirtualAuthenticator", { options });
    await go("/auth/ui/account/factors");
    await page.getByRole("button", { name: /passkey/i }).click();
    await page.waitForURL(/done=factor/);
    await look(page, `${name}: account/factors with both`, picture("factors"));
    await context.clearCookies();
    await go("/auth/ui/login?return_to=/api/report");
    await page.getByRole("button", { name: /passkey/i }).click();
    await page.waitForURL(`${base}/api/report`);
    await context.clearCookies();
    await signIn("/api/report?by=passkey");
    await page.getByRole("link", { name: /passkey/i }).click();
    await look(page, `${name}: factor by a passkey`);
    await page.getByRole("button", { name: /passkey/i }).click();
    await page.waitForURL(`${base}/api/report?by=passkey`);
    await go("/auth/ui/prove?return_to=/api/report&method=passkey");
    await page.getByRole("button", { name: /passkey/i }).click();
    await page.waitForURL(`${base}/api/report`);
    // Who cancels is told so, and may go another way.
    await device.send("WebAuthn.disable");
    await context.clearCookies();
    await signIn("/api/report");
    await page.getByRole("link", { name: /passkey/i }).click();
    await page.evaluate(() => { navigator.credentials.get = () => Promise.reject(new Error("cancelled")); });
    await page.getByRole("button", { name: /passkey/i }).click();
    await page.waitForSelector("[data-failed]:not([hidden])");
    await look(page, `${name}: factor by a passkey that was cancelled`);
    await page.click("a[href*=totp]");
    await page.fill("[autocomplete=one-time-code]", totp(secret, Math.floor(Date.now() / 30_000) + 1));
    await submit();
    at("/api/report");
  }
  await go("/auth/ui/account/factors");
  while ((await page.locator("[name=remove]").count()) > 0) await submit("[name=remove]");
  await look(page, `${name}: account/factors without any`);

  // Signed out in one tab, the other one is led to sign-in.
  const tab = await context.newPage();
  await tab.goto(`${base}/auth/ui/account`);
  await go("/auth/ui/logout");
  await look(page, `${name}: logout`);
  await submit();
  await look(page, `${name}: signed out`);
  await tab.reload();
  if (new URL(tab.url()).pathname !== "/auth/ui/login") found(name, `the other tab is at ${tab.url()}`);
  await context.close();
}

const settings = [];
for (const theme of ["light", "dark"]) {
  for (const [language, width] of [["en-GB", 1280], ["de-DE", 360]]) settings.push({ theme, language, width, script: true });
}
settings.push({ theme: "light", language: "en-GB", width: 360, script: false });
settings.push({ theme: "dark", language: "de-DE", width: 1280, script: false });
for (const one of settings) await visit(one);
await browser.close();
console.log(`walked ${walked} pages`);
