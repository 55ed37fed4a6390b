<?php
// Whether the request in a folder verifies: by the specification, with PHP's own functions. No library.
$read = fn ($name) => file_get_contents("$argv[1]/$name");
$headers = json_decode($read("headers.json"), true);
[$id, $timestamp] = [$headers["webhook-id"], $headers["webhook-timestamp"]];
$key = base64_decode(substr($read("secret"), strlen("whsec_")), true);
$right = "v1," . base64_encode(hash_hmac("sha256", "$id.$timestamp." . $read("body"), $key, true));

$verified = false;
foreach (explode(" ", $headers["webhook-signature"]) as $signature) {
    $verified = $verified || hash_equals($right, $signature);
}
echo $verified && ctype_digit($timestamp) && abs(time() - (int) $timestamp) <= 300 ? "verified\n" : "refused\n";
