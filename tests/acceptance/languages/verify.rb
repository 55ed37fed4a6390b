# Whether the request in a folder verifies: by the specification, with Ruby's own OpenSSL. No library.
require "json"
require "openssl"

folder = ARGV.fetch(0)
headers = JSON.parse(File.read("#{folder}/headers.json"))
id, timestamp, signatures = headers.values_at("webhook-id", "webhook-timestamp", "webhook-signature")
key = File.read("#{folder}/secret").delete_prefix("whsec_").unpack1("m0")
digest = OpenSSL::HMAC.digest("SHA256", key, "#{id}.#{timestamp}.".b + File.binread("#{folder}/body"))
right = "v1,#{[digest].pack("m0")}"

signed = signatures.split.any? { |signature| OpenSSL.secure_compare(right, signature) }
puts signed && (Time.now.to_i - Integer(timestamp, 10)).abs <= 300 ? "verified" : "refused"
