<?php
// Whether the request in a folder verifies, says the Standard Webhooks library for PHP, of a checkout of its sources.
use StandardWebhooks\Exception\WebhookVerificationException;
use StandardWebhooks\Webhook;

require getenv("STANDARD_WEBHOOKS") . "/libraries/php/init.php";
$read = fn ($name) => file_get_contents("$argv[1]/$name");
try {
    (new Webhook($read("secret")))->verify($read("body"), json_decode($read("headers.json"), true));
    echo "verified\n";
} catch (WebhookVerificationException) {
    echo "refused\n";
}
