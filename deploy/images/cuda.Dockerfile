# The service on a machine with an NVIDIA GPU: NVDEC for decoding, and what `hwaccel: cuda` needs of the driver comes with the
# NVIDIA container toolkit. From the root of a checkout:
#   docker build -f deploy/images/cuda.Dockerfile -t resadapt:cuda .
# EXTRAS adds extras of pyproject.toml (tensorrt, vllm, fleet), each gigabytes of torch; APT_EXTRAS packages of Ubuntu.
# For a release pin the base: --build-arg BASE=...@sha256:...
ARG BASE=nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE} AS build
# A point release of Ubuntu takes exact versions of packages away, so they are not pinned: the base is.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY deploy/images /build
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt,required=false /build/install dependencies python3
COPY . .
ARG EXTRAS=""
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt,required=false /build/install project "${EXTRAS}"

FROM ${BASE}
ARG APT_EXTRAS=""
# hadolint ignore=DL3008,SC2086
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 tzdata ${APT_EXTRAS} \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 resadapt \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/resadapt --shell /usr/sbin/nologin resadapt \
 && install -d /etc/resadapt \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/resadapt
COPY --from=build /opt/resadapt /opt/resadapt
ENV PATH=/opt/resadapt/bin:$PATH \
    HOME=/tmp \
    LANG=C.UTF-8 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    NVIDIA_VISIBLE_DEVICES=all \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RESADAPT_HEALTH=http://127.0.0.1:9108/health/live
LABEL org.opencontainers.image.title="resadapt-stream" \
      org.opencontainers.image.licenses="Apache-2.0"
# Everything that is written lies here or in /tmp: the rest may be read-only.
WORKDIR /var/lib/resadapt
USER 10001:10001
EXPOSE 8080 9108
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python3", "-I", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['RESADAPT_HEALTH'], timeout=4)"]
ENTRYPOINT ["resadapt"]
CMD ["serve", "-c", "/etc/resadapt/site.yaml"]
