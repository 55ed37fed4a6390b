# Whether the request in a folder verifies, says the Standard Webhooks library for Ruby, of a checkout of its sources.
$LOAD_PATH.unshift "#{ENV.fetch("STANDARD_WEBHOOKS")}/libraries/ruby/lib"
require "json"
require "standardwebhooks"

folder = ARGV.fetch(0)
begin
  webhook = StandardWebhooks::Webhook.new(File.read("#{folder}/secret"))
  webhook.verify(File.binread("#{folder}/body"), JSON.parse(File.read("#{folder}/headers.json")))
  puts "verified"
rescue StandardWebhooks::WebhookVerificationError
  puts "refused"
end
