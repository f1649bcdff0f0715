# The service on a Jetson (aarch64). From the root of a checkout, on the Jetson or with qemu:
#   docker build -f deploy/images/jetson.Dockerfile -t resadapt:jetson .
# The default is L4T r36 (JetPack 6.2: Orin). For L4T r38 and r39 (JetPack 7: Thor) the base is NVIDIA's usual one for Arm:
#   --build-arg BASE=nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04
# Ubuntu 22.04 of JetPack 6 has Python 3.10, so both take the same Python from uv.
# EXTRAS adds extras of pyproject.toml, APT_EXTRAS packages of Ubuntu. For a release pin the base by its digest.
ARG BASE=nvcr.io/nvidia/l4t-cuda:12.6.11-runtime

FROM ${BASE} AS build
# A point release of Ubuntu takes exact versions of packages away, so they are not pinned: the base is.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY deploy/images /build
ARG PYTHON=3.12.12
ARG UV=0.13.9
ENV UV_PYTHON_INSTALL_DIR=/opt/python
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt,required=false \
    if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt SSL_CERT_FILE=/run/secrets/ca.crt; fi \
 && python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir uv==${UV} \
 && /opt/uv/bin/uv python install "${PYTHON}" \
 && /build/install dependencies "$(/opt/uv/bin/uv python find "${PYTHON}")"
COPY . .
ARG EXTRAS=""
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt,required=false /build/install project "${EXTRAS}"

FROM ${BASE}
ARG APT_EXTRAS=""
# hadolint ignore=DL3008,SC2086
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates tzdata ${APT_EXTRAS} \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 resadapt \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/resadapt --shell /usr/sbin/nologin resadapt \
 && install -d /etc/resadapt \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/resadapt
COPY --from=build /opt/python /opt/python
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
