# The image that runs one bridge: the binary, its shared libraries and the root certificates.
#
# Plain instructions only (no cache mounts, no heredocs), so that builders without BuildKit take it.
# Both base images are arguments, for mirrors and for machines that keep their own.

# The compiler of rust-toolchain.toml; tests/compose/run holds the two together.
ARG BUILDER_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${BUILDER_IMAGE} AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin rowcast

FROM ${RUNTIME_IMAGE} AS runtime
# OpenSSL is Debian's, so that its fixes arrive by rebuilding the image. A base that brings both
# packages needs no network here.
RUN dpkg --status ca-certificates libssl3 >/dev/null 2>&1 \
    || { apt-get update \
        && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
        && rm -rf /var/lib/apt/lists/*; }
RUN useradd --system --uid 65532 --no-create-home --shell /usr/sbin/nologin rowcast
COPY --from=build /build/target/release/rowcast /usr/local/bin/rowcast
# A number, so that Kubernetes' runAsNonRoot works without reading /etc/passwd.
USER 65532
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["rowcast", "status"]
ENTRYPOINT ["rowcast"]
CMD ["run"]
