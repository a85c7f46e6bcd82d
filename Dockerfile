# An image for a machine with a persistent volume at /data (a Fly Machine, a container, a small VM): Debian, s6 and the
# runner as its entrypoint. Everything else comes by migrations. On Fly, ssh is the platform's own.
FROM debian:bookworm-slim

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        auditd ca-certificates execline iproute2 procps python3 s6 \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /data /etc/s6/services

# For the first boot. machine_prepared puts its own version on /data, which later boots use.
COPY pyinfra_overlaymig/__init__.py /usr/local/lib/system-migrate/pyinfra_overlaymig/
COPY pyinfra_overlaymig/format /usr/local/lib/system-migrate/pyinfra_overlaymig/format
COPY pyinfra_overlaymig/runner /usr/local/lib/system-migrate/pyinfra_overlaymig/runner
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /usr/local/lib/system-migrate \
    && ln -s ../lib/system-migrate/pyinfra_overlaymig/runner/system-migrate /usr/local/sbin/system-migrate

ENTRYPOINT ["/usr/local/sbin/system-migrate", "boot", "--"]
CMD ["s6-svscan", "/run/service"]
