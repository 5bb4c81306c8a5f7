#!/usr/bin/env ruby
# frozen_string_literal: true

# Posts one message to a Postern on this machine and prints its answer, with Ruby's standard library only.
# Usage: post.rb DESTINATION KEY BODY. INGEST_URL names another Postern, INGEST_TOKEN its token if it wants one.

require "net/http"
require "uri"

ATTEMPTS = 6

# Returns Postern's answer. While there is none, or one that asks to come again, it does so: the key makes that safe, since
# the same key and body are one message.
def post(destination, key, body)
  uri = URI("#{ENV.fetch('INGEST_URL', 'http://127.0.0.1:8025')}/to/#{destination}")
  headers = { "Content-Type" => "application/json", "Idempotency-Key" => key }
  token = ENV.fetch("INGEST_TOKEN", "")
  headers["Authorization"] = "Bearer #{token}" unless token.empty?
  pause = 0.2
  (1..ATTEMPTS).each do |attempt|
    wait = pause
    begin
      http = Net::HTTP.new(uri.host, uri.port, nil) # nil: never by a proxy of the environment
      http.open_timeout = http.read_timeout = http.write_timeout = 30
      http.max_retries = 0
      answer = http.start { http.post(uri.request_uri, body, headers) }
      return answer.body if answer.is_a?(Net::HTTPSuccess)

      failure = "#{answer.code} #{answer.message}: #{answer.body}"
      abort(failure) if answer.code != "429" && answer.code.to_i < 500 # the same again would get the same answer
      wait = answer["Retry-After"].to_i if answer["Retry-After"]&.match?(/\A\d+\z/)
    rescue SystemCallError, IOError, Timeout::Error => e
      failure = e.message
    end
    abort(failure) if attempt == ATTEMPTS
    sleep(wait)
    pause *= 2
  end
end

abort("usage: post.rb DESTINATION KEY BODY") unless ARGV.length == 3
puts post(*ARGV)
