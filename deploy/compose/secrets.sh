#!/usr/bin/env bash
# Makes the secrets of deploy/compose/compose.yaml, once: what is there is kept. They lie in `secrets` beside this file,
# a folder that only its owner may enter; the files in it can be read by the users of the containers they are given to.
set -euo pipefail
cd "$(dirname "$0")"
command -v openssl >/dev/null || { echo "openssl is needed" >&2; exit 1; }

mkdir -p secrets
chmod 0700 secrets
cd secrets

random() { openssl rand -hex 24; }

# keep FILE: writes standard input into FILE, whole or not at all, unless it is there.
keep() {
  if [[ -e $1 ]]; then
    cat >/dev/null
    echo "kept  secrets/$1"
  else
    cat >"$1.new"
    chmod 0444 "$1.new"
    mv "$1.new" "$1"
    echo "made  secrets/$1"
  fi
}

printf '%s' "$(random)" | keep postgres-password
printf '%s' "$(random)" | keep clickhouse-password
printf '%s' "$(random)" | keep analyst-password
printf '%s' "$(random)" | keep grafana-password
# A Fernet key: 32 random bytes, base64 for URLs. Without it the registry's secrets cannot be read: back it up.
openssl rand -base64 32 | tr '+/' '-_' | keep registry-key

printf 'postgresql+psycopg://midstream:%s@postgres:5432/midstream' "$(cat postgres-password)" | keep registry
printf 'http://midstream:%s@clickhouse:8123/midstream' "$(cat clickhouse-password)" | keep clickhouse

sha256() { printf '%s' "$(cat "$1")" | openssl dgst -sha256 -r | cut -d' ' -f1; }
# Hashes only. `midstream` may do everything in its database, and in the one that a backup is restored through; `analyst`
# may only read.
keep clickhouse-users.xml <<XML
<clickhouse>
    <profiles>
        <analyst>
            <readonly>2</readonly>
            <max_execution_time>300</max_execution_time>
            <max_memory_usage>4000000000</max_memory_usage>
        </analyst>
    </profiles>
    <users>
        <default remove="remove"/>
        <midstream>
            <password_sha256_hex>$(sha256 clickhouse-password)</password_sha256_hex>
            <networks><ip>::/0</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
            <grants>
                <query>GRANT ALL ON midstream.*</query>
                <query>GRANT ALL ON midstream_restoring.*</query>
                <query>GRANT SELECT ON system.*</query>
                <query>GRANT SHOW USERS, SHOW ROLES ON *.*</query>
                <query>GRANT READ, WRITE ON DISK</query>
            </grants>
        </midstream>
        <analyst>
            <password_sha256_hex>$(sha256 analyst-password)</password_sha256_hex>
            <networks><ip>::/0</ip></networks>
            <profile>analyst</profile>
            <quota>default</quota>
            <grants>
                <query>GRANT SELECT ON midstream.*</query>
            </grants>
        </analyst>
    </users>
</clickhouse>
XML
