# One image for every process of the market: ledger, gateway, host, worker, witness.
# The browser libraries come from npm, the rest from the lock; what remains has neither Node nor pip.

FROM node:22-bookworm-slim AS dashboard
WORKDIR /build
COPY api/dashboard/package.json api/dashboard/package-lock.json api/dashboard/.npmrc ./
RUN npm ci --omit=dev --ignore-scripts

FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv --without-pip /opt/rahba
WORKDIR /build
COPY requirements.lock requirements-build.lock ./
RUN pip --python /opt/rahba/bin/python install --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml LICENSE ./
COPY rahba rahba
COPY wallet wallet
COPY broker broker
COPY agents agents
COPY api api
COPY --from=dashboard /build/node_modules api/dashboard/node_modules
# The build backend stays in this stage.
RUN pip install --require-hashes --no-deps -r requirements-build.lock \
    && pip --python /opt/rahba/bin/python install --no-index --no-deps --no-build-isolation .

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/rahba --create-home rahba
COPY --from=build /opt/rahba /opt/rahba
ENV PATH=/opt/rahba/bin:$PATH PYTHONUNBUFFERED=1 RAHBA_DATA=/var/lib/rahba
USER rahba
WORKDIR /var/lib/rahba
VOLUME /var/lib/rahba
EXPOSE 8700
ENTRYPOINT ["rahba"]
CMD ["gateway"]
