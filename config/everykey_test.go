package config

// everyKey sets each supported key to something else than its default.
const everyKey = `
listen:
  ingest: 127.0.0.2:9025
  accepted_status: 200
  admin: 127.0.0.2:9026
  max_body: 2MiB
  tokens: ["${env:TOKEN}", {name: shop, token: "${env:TOKEN}-of-the-shop", destinations: [alerts], events: ["alert.*"], rate: 50/s}]
  admin_tokens: ["${env:TOKEN}-of-admin", {name: ops, token: "${env:TOKEN}-of-ops"}]
  socket_mode: "0660"
  socket_group: apps
  https:
    address: 127.0.0.2:9443
    domains: [relay.example.com]
    acme:
      email: ops@example.com
      directory: https://acme.example.com:9000/directory
      ca_file: acme-ca.pem
      allow_networks: [10.20.0.0/16]
      external_account: {key_id: k, hmac_key: "${env:TOKEN}"}
    client_ca_file: apps-ca.pem
store:
  path: /var/lib/postern
  retention: 24h
  min_free: 512MiB
  max_pending: 1000
  encryption_key: ["${env:TOKEN}", "${env:TOKEN}"]
log:
  format: json
  level: debug
tracing:
  otlp_endpoint: http://127.0.0.1:4318
  headers: {X-Tenant: "${env:TOKEN}"}
  sample_ratio: 0.5
egress:
  user_agent: Acme/2
  proxy: http://proxy.example:3128
  deny_networks: [203.0.113.0/24]
  resolve: {hooks.example.com: 10.20.0.7}
defaults:
  concurrency: 8
destinations:
  alerts:
    url: https://hooks.example.com/alerts
    enabled: false
    method: PUT
    events: ["alert.*", schema_change]
    when: $.a
    headers: {X-Team: data, X-Note: "", X-Event: "{{ .Event }}"}
    forward_headers: [X-Request-Id]
    forward_path: true
    content_type: application/json
    body: '{"data": {{ .Body }}}'
    auth:
      basic: {username: u, password: "${env:TOKEN}"}
    tls: {ca_file: ca.pem, cert_file: client.pem, key_file: client-key.pem, min_version: "1.3"}
    sign:
      - standard: {secrets: ["${env:TOKEN}"]}
      - hmac: {header: X-Sig, secret: "${env:TOKEN}", algorithm: sha512, encoding: base64, prefix: "v1="}
      - timestamped: {header: X-Time, secret: "${env:TOKEN}"}
      - timestamped: {header: X-Times, secret: ["${env:TOKEN}", "${env:TOKEN}"]}
      - rfc9421: {key_id: k, algorithm: ed25519, secret: "${env:TOKEN}", label: own, components: ["@method", content-digest]}
      - profile: {name: grafana, secret: "${env:TOKEN}", header: X-Grafana, timestamp_header: X-Grafana-Time}
    timeout: 10s
    success: ["204", 2xx]
    expect:
      - {path: $.data.status, values: [ok, 1, 0.5, true, null, [a], {b: c}]}
    retry: {attempts: 4, first: 10s, max: 10m, factor: 3, jitter: 0.1, max_age: 12h}
    breaker: {failures: 7, probe_every: 10s}
    concurrency: 4
    rate: 50/s
    order: key
    order_on_failure: block
    batch: {every: 2s, max: 50}
    allow_networks: [10.20.0.0/16]
    keep: {body: false, response: 1KiB, redact: ["$.card.number", $..token]}
  plain:
    url: https://hooks.example.com/plain
    auth: {bearer: {token: "${env:TOKEN}"}}
    retry: {schedule: [0s, 1m], jitter: 0}
  key:
    url: https://hooks.example.com/key
    auth: {api_key: {header: X-Key, value: "${env:TOKEN}"}}
    retry: none
    breaker: none
  oauth:
    url: https://hooks.example.com/oauth
    auth: {oauth2: {client_id: c, client_secret: ["${env:TOKEN}", "${env:TOKEN}"], token_url: https://login.example.com/token, scopes: [a, b], audience: x, secret_in: body}}
`
