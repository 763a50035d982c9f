# The one image of Headway's own processes; the role is the command (`api`, `worker --role builder`, …).
# Multi-stage: packages from the hash lock first, then only what runs. The servers that the embedded stack carries
# (temporal, weed, caddy) are left out: here they are containers of their own.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
# `.cache/wheels` is optional: where this build reaches no package index, `make image-wheels` fills it from the same
# lock, and PIP_ARGS="--no-index --find-links /build/wheels" takes the packages from there. Hashes are checked either way.
ARG PIP_ARGS=""
COPY requirements.lock .cache/wheel[s] /build/wheels/
# The root is read-only when it runs: what is not compiled now is compiled at each start.
RUN awk '/^[a-z]/ { keep = $0 !~ /^(temporal|seaweedfs|caddy)-bin==/ } keep' /build/wheels/requirements.lock > /build/image.lock \
    && python3 -m venv --without-pip /opt/headway \
    && python3 -m pip --disable-pip-version-check --python /opt/headway/bin/python install --quiet --no-cache-dir \
        --no-deps --only-binary :all: --no-compile --require-hashes ${PIP_ARGS} --requirement /build/image.lock \
    && echo /opt/headway-app > /opt/headway/lib/python3.11/site-packages/headway.pth \
    && python3 -m compileall -q -j 0 -x '/(tests?|pygments|rich|pip|graphql|[a-z0-9_]+-stubs)/' /opt/headway/lib
COPY . /opt/headway-app/
RUN rm -rf /opt/headway-app/.cache /opt/headway-app/requirements.lock && python3 -m compileall -q /opt/headway-app

FROM ${PYTHON_IMAGE}
# What builds may use, beside git and Python; the sandbox shows them read-only.
ARG TOOLCHAINS="nodejs npm"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client ca-certificates util-linux ${TOOLCHAINS} \
    && rm -rf /var/lib/apt/lists/*
# Empty named volumes take owner and mode from here.
RUN echo 'headway:x:10001:10001:Headway:/data:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'headway:x:10001:' >> /etc/group \
    && mkdir -p /data/events /data/observed /data/keys /data/ledger /data/host /data/repos /data/builder /data/run /data/trust /run/headway /srv/repos /config \
    && chmod 700 /data/keys /data/ledger /data/events /data/observed \
    && chown -R 10001:10001 /data /run/headway /config
COPY --from=packages /opt/headway /opt/headway
COPY --from=packages /opt/headway-app /opt/headway-app
ENV PATH=/opt/headway/bin:/usr/local/bin:/usr/bin:/bin \
    HEADWAY_DATA_DIR=/data \
    HEADWAY_BROKER_SOCKET=/run/headway \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["python", "-P", "-m", "headway"]
CMD ["--help"]
