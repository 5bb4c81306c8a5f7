package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-relay/postern/relay/sign"
	"github.com/postern-relay/postern/store"
)

// storeKind is the kind of secret that the store is encrypted with.
const storeKind = "store"

func (p *program) secretCommand() *cobra.Command {
	secret := &cobra.Command{
		Use:   "secret",
		Short: "Make secrets: for signing, and for the store",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	secret.AddCommand(p.secretNewCommand())
	return secret
}

func (p *program) secretNewCommand() *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Print a new secret: by default one of Standard Webhooks (whsec_ and 32 random bytes)",
		Long: `Print a new secret, made of 32 random bytes. Give it to the receiver, and to Postern through the
environment or a file. Of a key pair the receiver gets the public half alone, which is printed too.

  kind             in the config               printed
  standard         sign: standard: secrets     whsec_ and base64
  ed25519          sign: standard: secrets     whsk_ and base64; for the receiver whpk_ and base64
  hmac             sign: hmac, profile         hexadecimal digits, used as text
  timestamped      sign: timestamped           the same
  rfc9421-hmac     sign: rfc9421: secret       base64: and base64
  rfc9421-ed25519  sign: rfc9421: secret       PEM; for the receiver PEM
  rfc9421-ecdsa    sign: rfc9421: secret       the same, on P-256
  store            store: encryption_key       base64; for no receiver

The profile svix takes the kinds standard and ed25519.`,
		Example: `  postern secret new
  postern secret new --kind rfc9421-ed25519 --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			key := sign.Key{Kind: kind}
			if kind == storeKind {
				key.Secret = store.NewKey().Text()
			} else {
				var err error
				if key, err = sign.NewKey(kind); err != nil {
					return usageError{fmt.Errorf("%w, %s", err, storeKind)}
				}
			}
			if p.json {
				return p.printJSON(key)
			}
			fmt.Fprintln(p.stdout, key.Secret)
			if key.Public != "" {
				// Not on the standard output, so that > writes a file with the secret alone.
				fmt.Fprintln(p.stderr, "For the receiver, the public half:")
				fmt.Fprintln(p.stderr, key.Public)
			}
			return nil
		},
	}
	kinds := append(sign.Kinds(), storeKind)
	cmd.Flags().StringVar(&kind, "kind", "standard", "kind of secret: "+strings.Join(kinds, ", "))
	p.completeFlag(cmd, "kind", fixed(kinds))
	return cmd
}
