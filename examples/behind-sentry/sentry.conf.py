# Sentry's side, appended to sentry/sentry.conf.py: without this it posts to public addresses only.
# All that Sentry refuses by itself but the loopback network, in which Postern listens.
SENTRY_DISALLOWED_IPS = tuple(
    network for network in SENTRY_DISALLOWED_IPS if not network.startswith("127.")
)
