# weir in an image of its binary and a base with glibc, and nothing else.
#
#   docker build -t weir .                       compiles here; needs crates.io
#   docker build -t weir --target ready .        takes dist/weir, built before (make ship)
#
# BASE and BUILDER may be images of your own registry. The base needs glibc of the builder's version or later, ld.so and libgcc_s;
# weir is not linked statically, for NVIDIA's library is loaded while it runs.
ARG BUILDER=docker.io/library/rust:1.95-bookworm
ARG BASE=gcr.io/distroless/cc-debian13:nonroot

FROM ${BASE} AS bare
ARG VERSION=0.1.0
ARG WEIR_REVISION=unknown
LABEL org.opencontainers.image.title="weir" \
      org.opencontainers.image.description="A sidecar reverse proxy that measures the saturation of LLM inference servers under real traffic" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${WEIR_REVISION}"
COPY LICENSE THIRD-PARTY.md /licenses/
# By number: Kubernetes' runAsNonRoot cannot judge a name. No HEALTHCHECK: there is no shell, and who orchestrates asks /livez.
USER 65532:65532
EXPOSE 8000 9902
ENTRYPOINT ["/weir"]
CMD ["serve", "--config", "/etc/weir/weir.yaml"]

# A pattern, for some builders build this stage whether or not it is asked for, and a pattern may find nothing.
FROM bare AS ready
COPY --chmod=755 LICENSE dist/wei[r] /

FROM ${BUILDER} AS build
ARG WEIR_REVISION=
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN WEIR_REVISION="${WEIR_REVISION}" deploy/release.sh /out/weir

FROM bare AS image
COPY --from=build /out/weir /weir
