// Goes through a demo with Chromium, as somebody who looks whether it is a product.
//
//   node demo.mjs ADDRESS
//
// ADDRESS is the one that the demo says to open. What is found is printed, a line each; the last line is `done`.

import { createRequire } from "node:module";
import { join } from "node:path";
import { totp } from "./totp.mjs";

const { chromium } = createRequire(join(process.env.PEERS, "package.json"))("playwright-core");
const address = process.argv[2];
const { origin } = new URL(address);
const [user, password] = ["somebody", "a long enough password"];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const context = await browser.newContext();
const page = await context.newPage();
const expect = (what, is) => { if (!is) console.log(`${what}, at ${page.url()}`); };
const submit = (selector = "form button") => Promise.all([page.waitForNavigation(), page.click(selector)]);
const orders = async () => JSON.parse(await page.locator("body").textContent());
const signIn = async () => {
  await page.fill("[autocomplete=username]", user);
  await page.fill("[autocomplete=current-password]", password);
  await submit();
};

// Whoever has no account gets one, and is where they were going.
await page.goto(address);
await page.click("a[href*=register]");
await page.fill("[autocomplete=username]", user);
await page.fill("[autocomplete=new-password]", password);
await submit();
expect("not back", page.url() === address);
expect("not known", (await orders()).headers["x-user-name"] === user);

// The account, and a factor.
await page.goto(`${origin}/auth/ui/account`);
expect("no account", (await page.content()).includes(user));
await page.goto(`${origin}/auth/ui/account/factors`);
await submit("[value=totp]");
const secret = await page.textContent("code");
await page.fill("[autocomplete=one-time-code]", totp(secret));
await submit();
const recovery = await page.locator("code").allTextContents();
expect("no recovery codes", recovery.length > 5);

// Signed out in one tab, the other one is refused, whatever it asks for.
const tab = await context.newPage();
await tab.goto(address);
await page.goto(`${origin}/auth/ui/logout`);
await submit();
expect("still signed in", (await tab.evaluate((url) => fetch(url).then(({ status }) => status), address)) === 401);
await tab.reload();
expect(`the other tab is at ${tab.url()}`, new URL(tab.url()).pathname === "/auth/ui/login");

// The password alone opens nothing any more.
await page.goto(address);
await signIn();
expect("no second step", new URL(page.url()).pathname === "/auth/ui/factor");
await page.click("a[href*=recovery]");
await page.fill("[autocomplete=one-time-code]", recovery[0]);
await submit();
expect("not back after the second step", page.url() === address);

// No page of another site shows one of these within itself.
const frame = await context.newPage();
await frame.goto(`${origin.replace("localhost", "127.0.0.1")}/public/page`);
await frame.evaluate((sources) => sources.forEach((src) => {
  document.body.append(Object.assign(document.createElement("iframe"), { src }));
}), [`${origin}/auth/ui/login`, `${origin}/public/hello`]);
await frame.waitForLoadState("networkidle");
const [login, open] = await Promise.all(frame.frames().slice(1).map((one) => one.content()));
expect("a page is shown in a frame", !login.includes("<form"));
expect("an application's page is not", open.includes("/public/hello"));
await browser.close();
console.log("done");
