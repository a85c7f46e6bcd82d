# An image for a machine with a persistent volume at /data (a Fly Machine, a container, a small VM): Debian, s6 and the
# runner as its entrypoint. Everything else comes by migrations. On Fly, ssh is the platform's own.
FROM debian:bookworm-slim

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        attr auditd ca-certificates diffutils execline iproute2 mount procps s6 \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /data /etc/s6/services

# For the first boot. machine_prepared puts its own version on /data, which later boots use.
COPY --chmod=755 pyinfra_overlaymig/runner /usr/local/lib/system-migrate
RUN ln -s ../lib/system-migrate/system-migrate /usr/local/sbin/system-migrate

ENTRYPOINT ["/bin/sh", "/usr/local/lib/system-migrate/system-migrate", "boot", "--"]
CMD ["s6-svscan", "/run/service"]
