# syntax=docker/dockerfile:1
# Build:  docker build -t strongroom .
# Run:    see deploy/compose.yaml

# Any image with Python 3.11 to 3.13 will do.
ARG BASE=docker.io/library/python:3.12-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# The dependencies are a layer of their own: a change of the code does not install them again.
COPY constraints.txt pyproject.toml ./
RUN python3 -m venv /opt/strongroom \
 && /opt/strongroom/bin/python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" \
    > /tmp/requirements.txt \
 && /opt/strongroom/bin/pip install -c constraints.txt -r /tmp/requirements.txt
COPY README.md LICENSE ./
COPY strongroom ./strongroom
RUN /opt/strongroom/bin/pip install -c constraints.txt --no-deps . \
 && /opt/strongroom/bin/strongroom --version

FROM ${BASE}
LABEL org.opencontainers.image.title="Strongroom" \
      org.opencontainers.image.description="A log archive that can prove its contents" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 strongroom \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin strongroom \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/strongroom/archive \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/strongroom/state
COPY --from=build /opt/strongroom /opt/strongroom
ENV PATH=/opt/strongroom/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    STRONGROOM_ARCHIVE=/var/lib/strongroom/archive \
    STRONGROOM_STATE=/var/lib/strongroom/state \
    STRONGROOM_LISTEN=0.0.0.0:8420 \
    STRONGROOM_LOG_FORMAT=json
USER 10001:10001
# Two volumes: who can replace the archive must not thereby hold the keys and the signer's memory.
VOLUME ["/var/lib/strongroom/archive", "/var/lib/strongroom/state"]
EXPOSE 8420
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8420/readyz', timeout=4)"]
ENTRYPOINT ["strongroom"]
CMD ["serve"]
