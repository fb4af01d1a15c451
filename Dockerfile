# One image for every service and job: `docker compose` and Helm name the command. docs/guides/docker-compose.md.
# Any image of this Python will do; a digest pins it: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# ------------------------------------------------- build: every package by hash, then our wheel
FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
COPY requirements/build.lock requirements/runtime.lock requirements/
# Wheels only: nothing is compiled, so nothing of a compiler can be left behind.
RUN python -m venv /build/tools \
    && /build/tools/bin/pip install --require-hashes --only-binary :all: -r requirements/build.lock \
    && python -m venv /opt/nocturne \
    && /opt/nocturne/bin/pip install --require-hashes --only-binary :all: -r requirements/runtime.lock
COPY LICENSE README.md pyproject.toml ./
COPY services services
RUN /build/tools/bin/hatchling build -t wheel -d dist \
    && /opt/nocturne/bin/pip install --no-deps --no-index dist/*.whl \
    && /opt/nocturne/bin/python -m compileall -q /opt/nocturne/lib \
    && /opt/nocturne/bin/pip uninstall -y -q pip setuptools

# ------------------------------------------------- what runs: Python, the packages, one user
FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="Nocturne" \
      org.opencontainers.image.description="A signed event ledger: every service and job" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"
RUN groupadd --gid 10001 nocturne \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/nocturne --no-create-home --shell /usr/sbin/nologin nocturne \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/nocturne
# Of root, so that no service can change its own code.
COPY --from=build --chown=0:0 /opt/nocturne /opt/nocturne
ENV PATH=/opt/nocturne/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    TMPDIR=/tmp \
    NOCTURNE_HOME_DIR=/var/lib/nocturne \
    NOCTURNE_GENESIS_FILE=/etc/nocturne/genesis/genesis.avro \
    NOCTURNE_LISTEN=0.0.0.0:7400 \
    NOCTURNE_METRICS_LISTEN=0.0.0.0:7500
WORKDIR /tmp
USER 10001:10001
EXPOSE 7400 7500
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-m", "nocturne.runtime.probe", "ready"]
# What the image is, when nobody says which service it is to be.
CMD ["nocturne", "--help"]
