package config

import "net/netip"

// Listen says where Postern listens.
type Listen struct {
	// Address of the listener that takes messages: host:port or unix:///path. An address other than loopback or unix needs tokens.
	Ingest string `yaml:"ingest" rule:"clear;default=127.0.0.1:8025"`
	// The status that answers an accepted message: 202, or 200 for producers that take nothing else.
	AcceptedStatus int `yaml:"accepted_status" rule:"enum=200|202;default=202"`
	// Address of the listener for health checks and administration: host:port or unix:///path. An address other than loopback or unix needs admin_tokens, and there is no TLS on it.
	Admin string `yaml:"admin" rule:"clear;default=127.0.0.1:8026"`
	// Largest body of a message, at most 16MiB.
	MaxBody Size `yaml:"max_body" rule:"min=1B;max=16MiB;default=1MiB"`
	// Bearer tokens that let an app post: texts, each good for everything, or mappings that give a token a name and bounds. Without tokens every local process may post.
	Tokens []Token `yaml:"tokens" rule:"max=100"`
	// Bearer tokens for the admin listener, its API, metrics and streams: texts, or mappings that give a token a name. The dashboard's page asks for one. Without them every local process may use it.
	AdminTokens []AdminToken `yaml:"admin_tokens" rule:"max=100"`
	// Mode of the socket file of a listener at unix:///path, in octal: who may write to it may connect.
	SocketMode Mode `yaml:"socket_mode" rule:"clear;default=0600"`
	// Group of the socket file of a listener at unix:///path, by name or number; without it that of the process.
	SocketGroup string `yaml:"socket_group" rule:"clear;int"`
	// A second ingest listener, for apps on other hosts, which speaks TLS. Its certificates come by themselves, or from files. The tokens above hold for it too.
	HTTPS *HTTPS `yaml:"https"`
}

// Token is a bearer token of an app. In the file a token without a name and bounds is its text alone.
type Token struct {
	// What log and metrics call the token: letters, digits, dots, hyphens and underscores, at most 100 in all.
	Name string `yaml:"name" rule:"required"`
	// The token itself: 16 characters or more of A-Z a-z 0-9 - . _ ~ + / =, best made at random.
	Token Secret `yaml:"token" rule:"required"`
	// Names of the destinations that it may post to. An event that would go to another one as well is refused. Without it, it may post to all; to events alone if events is set.
	Destinations []string `yaml:"destinations" rule:"min=1;max=1000"`
	// Patterns of the events that it may post, as in the events of a destination. Without it, all.
	Events []string `yaml:"events" rule:"min=1;max=1000"`
	// Most messages that it may post per time, such as 50/s or 1000/h: so many at once, and then at that pace. Beyond it the answer is 429. Without it there is no such bound.
	Rate *Rate `yaml:"rate"`
}

// AdminToken is a bearer token of the admin listener. In the file one without a name is its text alone.
type AdminToken struct {
	// What log and metrics call the token: letters, digits, dots, hyphens and underscores, at most 100 in all.
	Name string `yaml:"name" rule:"required"`
	// The token itself: 16 characters or more of A-Z a-z 0-9 - . _ ~ + / =, best made at random.
	Token Secret `yaml:"token" rule:"required"`
}

// HTTPS is the ingest listener for apps on other hosts. Either Domains are set, or CertFile and KeyFile.
type HTTPS struct {
	// Address to listen on: host:port. A port alone, as in :443, means all addresses of this machine.
	Address string `yaml:"address" rule:"clear;default=:443"`
	// Names to obtain certificates for, one each, such as relay.example.com. The authority checks that they lead to this listener, at port 443 (TLS-ALPN-01); port 80 is not needed. Apps must use one of them. To set it is to agree to the authority's terms of service.
	Domains []string `yaml:"domains" rule:"min=1;max=100"`
	// How the certificates of domains are obtained.
	ACME ACME `yaml:"acme"`
	// PEM file with a certificate of your own, its chain behind it, instead of domains. Apps must use a name that it is for. All three files are read again when they change, and count when they are in order. A relative path counts from the folder of the config file.
	CertFile string `yaml:"cert_file" rule:"path;clear"`
	// PEM file with the key of cert_file, not encrypted.
	KeyFile string `yaml:"key_file" rule:"path;clear"`
	// PEM file with the authorities of client certificates. With it, apps must show a certificate of one of them (mTLS), besides the token.
	ClientCAFile string `yaml:"client_ca_file" rule:"path;clear"`
}

// ACME says how certificates are obtained (RFC 8555).
type ACME struct {
	// Mail address of the account, where the authority writes to if something is wrong.
	Email string `yaml:"email"`
	// URL of the authority's directory: https, with any port. Without it that of Let's Encrypt. What the directory says is asked at its own host and port alone.
	Directory string `yaml:"directory" rule:"default=https://acme-v02.api.letsencrypt.org/directory"`
	// PEM file with the roots that the directory's own certificate is checked against, instead of the system's, for a private authority. It is read again when it changes.
	CAFile string `yaml:"ca_file" rule:"path;clear"`
	// Private networks that the directory may be in, such as 10.20.0.0/16. Link-local and metadata addresses are never allowed.
	AllowNetworks []netip.Prefix `yaml:"allow_networks" rule:"max=1000"`
	// An account that exists already at the authority, for one that asks for it.
	ExternalAccount *ExternalAccount `yaml:"external_account"`
}

// ExternalAccount is an account that the one for certificates is bound to (RFC 8555, section 7.3.4).
type ExternalAccount struct {
	// Id of the key that the authority has given out.
	KeyID string `yaml:"key_id" rule:"required"`
	// The key itself, in base64url as the authority has given it out.
	HMACKey Secret `yaml:"hmac_key" rule:"required"`
}
