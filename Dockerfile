# docker build -t postern --build-arg VERSION=1.2.3 .
# docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7 …
#
# Built where the builder runs, and for each platform by Go's own cross compiler.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION="" TARGETOS="" TARGETARCH="" TARGETVARIANT=""
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH GOARM=${TARGETVARIANT#v} make build VERSION="$VERSION"
# The data folder belongs to the user of the last stage; a new volume takes owner and mode over from it.
RUN mkdir /empty-data

FROM scratch
LABEL org.opencontainers.image.title="Postern" \
      org.opencontainers.image.description="Durable delivery of webhooks: a sidecar that takes plain HTTP posts and delivers them over HTTPS" \
      org.opencontainers.image.licenses="Apache-2.0"
# Receivers are verified against these; tls.ca_file of a destination replaces them.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/LICENSE /LICENSE
COPY --from=build /src/bin/postern /postern
COPY --from=build --chown=65532:65532 --chmod=0700 /empty-data /data
USER 65532:65532
ENV POSTERN_CONFIG=/etc/postern/postern.yaml \
    POSTERN_STORE_PATH=/data
# Nothing outside of /data is ever written: run it with --read-only.
VOLUME /data
# No EXPOSE: Postern listens on loopback, for the app in the same network namespace.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/postern", "healthcheck"]
ENTRYPOINT ["/postern"]
CMD ["run", "--config", "/etc/postern/postern.yaml"]
