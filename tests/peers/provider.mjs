// A certified OpenID provider. Prints `port N`; ends with its input.
//
//   provider.mjs PEERS GATEWAY    PEERS is the folder of its packages, GATEWAY the address of a gateway that it tells of logouts
//
// People sign in as whom GET /as?sub=S[&unverified=1] has named at last; with `unverified` their addresses are not.
// GET /mint?sub=S&sid=S[&opaque=1]  an access token    GET /end?sub=S&sid=S  tells of a logout    GET /rotate  other keys
import { generateKeyPairSync, randomUUID } from "node:crypto";
import http from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [, , peers, gateway] = process.argv;
const load = createRequire(`${peers}/`);
const { default: Provider } = await import(pathToFileURL(load.resolve("oidc-provider")));

const key = (type, options, alg) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: "jwk" }), alg, use: "sig", kid: randomUUID(),
});
// Those that the gateway accepts, each in turn.
const kinds = [
  ["RS256", () => key("rsa", { modulusLength: 2048 }, "RS256")],
  ["PS256", () => key("rsa", { modulusLength: 2048 }, "PS256")],
  ["ES256", () => key("ec", { namedCurve: "P-256" }, "ES256")],
  ["ES384", () => key("ec", { namedCurve: "P-384" }, "ES384")],
  ["RS512", () => key("rsa", { modulusLength: 2048 }, "RS512")],
  ["RS384", () => key("rsa", { modulusLength: 2048 }, "RS384")],
  ["EdDSA", () => key("ed25519", {}, "EdDSA")],
];
let turn = 0;

const server = http.createServer();
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const SECRET = "the secret of the gateway there";

const make = () => {
  const [alg, generate] = kinds[turn++ % kinds.length];
  const keys = [generate()];
  if (alg !== "RS256") keys.push(key("rsa", { modulusLength: 2048 }, "RS256"));
  const provider = new Provider(issuer, {
    clients: [{
      client_id: "gateway", client_secret: SECRET,
      redirect_uris: ["corp", "other"].map((name) => `https://app.example.com/auth/ui/provider/${name}/callback`),
      backchannel_logout_uri: `${gateway}/auth/backchannel-logout`, backchannel_logout_session_required: true,
      id_token_signed_response_alg: alg,
    }],
    jwks: { keys },
    enabledJWA: { idTokenSigningAlgValues: [...new Set([alg, "RS256"])] },
    features: {
      backchannelLogout: { enabled: true }, devInteractions: { enabled: false },
      introspection: { enabled: true, allowedPolicy: () => true },
      resourceIndicators: { enabled: true },
    },
    extraTokenClaims: (_, token) => ({ sid: token.sid, preferred_username: `${token.accountId} by name`, roles: ["staff"] }),
    claims: { email: ["email", "email_verified"], profile: ["preferred_username"] },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    loadExistingGrant: async ({ oidc }) => {
      const grant = new oidc.provider.Grant({ accountId: oidc.session.accountId, clientId: oidc.client.clientId });
      grant.addOIDCScope("openid email profile");
      await grant.save();
      return grant;
    },
    findAccount: (_, accountId) => ({
      accountId,
      claims: () => ({
        sub: accountId, preferred_username: accountId, email: `${accountId}@example.com`, email_verified: isVerified,
      }),
    }),
  });
  return { alg, provider, serve: provider.callback() };
};
let { alg, provider, serve } = make();
let person = "anna", isVerified = true;

server.on("request", async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, issuer);
  const [sub, sid] = ["sub", "sid"].map((name) => searchParams.get(name));
  try {
    if (pathname === "/mint") {
      const client = await provider.Client.find("gateway");
      const token = new provider.AccessToken({ accountId: sub, client, scope: "read", gty: "authorization_code" });
      const grant = new provider.Grant({ accountId: sub, clientId: "gateway" });
      grant.addResourceScope("https://orders.example.com", "read");
      Object.assign(token, { sid, grantId: await grant.save() });
      token.resourceServer = new provider.ResourceServer("https://orders.example.com", {
        scope: "read", audience: "orders", accessTokenTTL: 600,
        accessTokenFormat: searchParams.has("opaque") ? "opaque" : "jwt", jwt: { sign: { alg } },
      });
      response.end(await token.save());
    } else if (pathname === "/end") {
      const client = await provider.Client.find("gateway");
      await client.backchannelLogout(sub, sid);
      response.end("told");
    } else if (pathname === "/as") {
      person = sub;
      isVerified = !searchParams.has("unverified");
      response.end("so be it");
    } else if (pathname.startsWith("/interaction/")) {
      await provider.interactionFinished(request, response, { login: { accountId: person } });
    } else if (pathname === "/rotate") {
      ({ alg, provider, serve } = make());
      response.end(alg);
    } else {
      serve(request, response);
    }
  } catch (error) {
    response.writeHead(500).end(String(error?.stack ?? error));
  }
});
console.log(`port ${server.address().port}`);
process.stdin.on("end", () => process.exit()).resume();
