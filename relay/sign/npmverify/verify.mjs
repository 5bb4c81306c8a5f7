// Verifies requests by the libraries that receivers use. It reads one case a line on the standard input, as JSON,
// and answers each with a line {"name", "ok", "error"?}. The body is in base64. The case "sign" is the other way
// round: the library signs, and the answer holds its headers.
import { createHash, createPublicKey, verify as verifyRaw } from "node:crypto";
import { createInterface } from "node:readline";
import { verify as verifyGitHub } from "@octokit/webhooks-methods";
import { createSigner, createVerifier, httpbis } from "http-message-signatures";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";

const stripe = new Stripe("sk_test_none");

const verifiers = {
  standard({ key, headers, body }) {
    new StandardWebhook(key).verify(body.toString(), headers);
  },
  svix({ key, headers, body }) {
    new SvixWebhook(key).verify(body.toString(), headers);
  },
  // No library verifies v1a: this is what the specification says, with Node's own ed25519.
  v1a({ key, headers, body }) {
    const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), Buffer.from(key.slice(5), "base64")]);
    const publicKey = createPublicKey({ key: der, format: "der", type: "spki" });
    const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
    const proofs = headers["webhook-signature"].split(" ").filter((s) => s.startsWith("v1a,"));
    if (!proofs.some((s) => verifyRaw(null, signed, publicKey, Buffer.from(s.slice(4), "base64")))) {
      throw new Error("no signature matches");
    }
  },
  async github({ key, headers, body }) {
    if (!(await verifyGitHub(key, body.toString(), headers["x-hub-signature-256"]))) {
      throw new Error("no signature matches");
    }
  },
  stripe({ key, headers, body }) {
    stripe.webhooks.signature.verifyHeader(body, headers["stripe-signature"], key, 300);
  },
  async rfc9421({ key, algorithm, keyId, method, url, headers, body, components }) {
    const result = await httpbis.verifyMessage(
      {
        keyLookup: async (params) =>
          params.keyid === keyId ? { id: keyId, algs: [algorithm], verify: createVerifier(material(key, algorithm), algorithm) } : null,
        maxAge: 300,
        requiredParams: ["created", "keyid", "alg"],
        requiredFields: components,
      },
      { method, url, headers },
    );
    if (result !== true) {
      throw new Error(`verifyMessage: ${result}`);
    }
    const digest = `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
    if (headers["content-digest"] !== digest) {
      throw new Error("the digest is another one");
    }
  },
  async sign({ key, algorithm, keyId, method, url, headers, components }) {
    const signed = await httpbis.signMessage(
      { key: createSigner(material(key, algorithm), algorithm, keyId), name: "npm", fields: components, params: ["created", "keyid", "alg"] },
      { method, url, headers },
    );
    return { headers: signed.headers };
  },
};

// material turns our form of a shared key into its bytes; keys in PEM stay as they are.
function material(key, algorithm) {
  return algorithm === "hmac-sha256" ? Buffer.from(key.replace(/^base64:/, ""), "base64") : key;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { name, verifier, body, ...rest } = JSON.parse(line);
  let answer = { name, ok: true };
  try {
    answer = { ...answer, ...(await verifiers[verifier]({ ...rest, body: Buffer.from(body, "base64") })) };
  } catch (error) {
    answer = { name, ok: false, error: String(error) };
  }
  console.log(JSON.stringify(answer));
}
