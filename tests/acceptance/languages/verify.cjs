// Whether the request in a folder verifies, says the Standard Webhooks library for JavaScript.
const { readFileSync } = require("node:fs");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

const read = (name) => readFileSync(`${process.argv[2]}/${name}`);
try {
  new Webhook(read("secret").toString()).verify(read("body"), JSON.parse(read("headers.json")));
  console.log("verified");
} catch (error) {
  if (!(error instanceof WebhookVerificationError)) throw error;
  console.log("refused");
}
