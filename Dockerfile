# Builds Reprise with the Swift toolchain and ships only the binary.
# The tags of the base images can be moved to other contents. To pin one, append @ and the digest (sha256:…) that
# `docker buildx imagetools inspect TAG` prints.

FROM swift:6.3.1-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends libsqlite3-dev libyaml-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source

# The dependencies, in a separate layer that is reused until their versions change.
COPY Package.swift ./
COPY scripts/versions.sh scripts/versions.txt scripts/
RUN scripts/versions.sh pin

# Migrations and openapi.yaml are embedded in the binary.
COPY Sources Sources
COPY Migrations Migrations
COPY openapi.yaml ./
# The manifest names the targets of the tests, so their folders must exist. Their contents are not needed.
RUN for name in TestSupport MutexAnnotations PowerCutVFS DomainTests SQLiteStorageTests StorageContractTests \
        FaultTests HTTPAPITests RepriseTests; do \
        mkdir -p "Tests/${name}" && touch "Tests/${name}/Empty.swift"; \
    done
RUN swift build -c release --static-swift-stdlib --product reprise \
    && install -D --strip "$(swift build -c release --static-swift-stdlib --show-bin-path)/reprise" /out/reprise

FROM debian:12.12-slim
# Only the libraries that the binary links; scripts/check-image-steps.sh compares the two.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libsqlite3-0 libyaml-0-2 libstdc++6 \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --system --gid 10001 reprise \
    && useradd --system --uid 10001 --gid reprise --no-create-home --home-dir /data --shell /usr/sbin/nologin reprise \
    && install -d -o reprise -g reprise -m 0750 /data
COPY --from=build /out/reprise /usr/local/bin/reprise

ENV REPRISE_HOST=0.0.0.0 \
    REPRISE_DATABASE=/data/reprise.db
USER reprise
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["reprise", "health"]
ENTRYPOINT ["reprise"]
CMD ["serve"]
